import numpy as np
import pytest
import torch
from safetensors import safe_open

from executors.errors import ConfigError, DataError
from rl.data.spans import Marked, Span, Targets, targets
from rl.learner.tool_head import (
    HeadFit,
    Shard,
    combined,
    fit_head,
    fit_shared,
    gradient,
    hits,
    losses,
    predicted,
    read_places,
)
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_head import HEAD, ToolHead, described_row, fresh_head, hidden_and_logits, joint_loss, merged

TOOLS = ("add", "multiply", "power")
TEXTS = [
    Marked("two and three make 5 in all", (Span(19, 20, "add"),)),
    Marked("six times seven is 42.", (Span(19, 21, "multiply"),)),
    Marked("2 to the power of 9 is 512", (Span(23, 26, "power"),)),
    Marked("nothing is called here", ()),
    Marked("one and one make 2, two times two is 4", (Span(17, 18, "add"), Span(37, 38, "multiply"))),
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([text.text for text in TEXTS], vocab_size=320)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(len(tokenizer), width=32, layers=2, heads=2, max_length=64, seed=3).eval()


@pytest.fixture(scope="module")
def rows(tokenizer) -> list[Targets]:
    return [targets(text, tokenizer, {name: n for n, name in enumerate(TOOLS)}) for text in TEXTS]


@pytest.fixture(scope="module")
def places(model, rows, tokenizer):
    return read_places(model, rows, vocabulary=len(tokenizer), batch_size=2)


def naive(model, rows, weight):
    """The mean loss over all places, as published: a pass a text."""
    hidden, logits, labels = [], [], []
    for row in rows:
        states, words = hidden_and_logits(model, torch.tensor([row.ids[:-1]]))
        hidden.append(states[0].detach())
        logits.append(words[0].detach())
        labels.append(torch.tensor(row.labels))
    return joint_loss(torch.cat(logits), torch.cat(hidden), weight, torch.cat(labels))


def test_the_cached_form_equals_the_published_loss_and_its_gradient(model, rows, places):
    head = fresh_head(TOOLS, 32, seed=0)
    slow, fast = head.weight.clone().requires_grad_(), head.weight.clone().requires_grad_()
    expected = naive(model, rows, slow)
    got = losses(fast, places).mean()
    expected.backward()
    got.backward()
    assert got.item() == pytest.approx(expected.item(), abs=1e-5)
    assert slow.grad is not None and fast.grad is not None
    assert torch.allclose(slow.grad, fast.grad, atol=1e-5)
    assert slow.grad.abs().max() > 1e-3


def test_the_gradient_in_closed_form_is_autograd_s_and_the_steps_are_adam_s(places):
    start = fresh_head(TOOLS, 32, seed=2)
    counts = torch.linspace(-1, 2, len(places))
    weight = start.weight.clone().requires_grad_()
    expected = (losses(weight, places) * counts).sum()
    expected.backward()
    value, change = gradient(start.weight, places, counts)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert weight.grad is not None and torch.allclose(change, weight.grad, atol=1e-5)
    weight = start.weight.clone().requires_grad_()
    adam = torch.optim.Adam([weight], lr=0.05)
    for _ in range(4):
        adam.zero_grad()
        losses(weight, places).mean().backward()
        adam.step()
    learned, _ = fit_head(start, places, HeadFit(epochs=4, lr=0.05, batch_size=99))
    assert torch.allclose(learned.weight, weight.detach(), atol=1e-5)


def test_shards_add_up_to_the_whole(places):
    head = fresh_head(TOOLS, 32, seed=1)
    weight = head.weight.clone().requires_grad_()
    loss = losses(weight, places).mean()
    loss.backward()
    parts = [Shard(part) for part in places.shards(3)]
    value, gradient = combined(part.gradient(head.weight.numpy()) for part in parts)
    assert sum(len(part.places) for part in parts) == len(places)
    assert value == pytest.approx(loss.item(), abs=1e-5)
    np.testing.assert_allclose(gradient, weight.grad, atol=1e-6)


def test_only_the_rows_change_and_they_learn(model, places):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = fresh_head(TOOLS, 32, seed=0)
    _, epochs = fit_head(start, places, HeadFit(epochs=60, lr=0.1, batch_size=2))
    assert epochs[-1].loss < epochs[0].loss
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(start.weight, fresh_head(TOOLS, 32, seed=0).weight)
    tools = places.of_tools()
    said = predicted(fit_head(start, places, HeadFit(epochs=200, lr=0.3, only_tools=True))[0], tools)
    assert torch.equal(said, tools.tool)


def test_a_fit_is_the_same_again(places):
    fits = [fit_head(fresh_head(TOOLS, 32, 0), places, HeadFit(epochs=3, seed=7))[0].weight for _ in range(2)]
    assert torch.equal(*fits)


def test_a_place_that_counts_for_less_than_nothing_makes_its_tool_less_likely(places):
    start = fresh_head(TOOLS, 32, seed=0)
    tools = places.of_tools()
    signs = torch.where(tools.tool == 0, -1.0, 1.0)
    head, _ = fit_head(start, tools, HeadFit(epochs=5, lr=0.05), weights=signs)
    adds = tools.only(tools.tool == 0)
    before, after = (adds.hidden @ h.weight.T for h in (start, head))
    assert (after.log_softmax(-1)[:, 0] < before.log_softmax(-1)[:, 0]).all()


def test_nothing_to_learn_from_is_said(places):
    words = places.only(places.tool < 0)
    with pytest.raises(DataError, match="no places"):
        fit_head(fresh_head(TOOLS, 32, 0), words, HeadFit(only_tools=True))


def test_precision_recall_and_f1_of_each_tool(places):
    tools = places.of_tools()
    head = ToolHead(TOOLS, torch.zeros(3, 32))
    every = hits(head, tools, bias=1e9)  # all alike: the first is taken
    assert (every["add"].right, every["add"].wrong, every["add"].missed) == (2, 3, 0)
    assert every["add"].precision == pytest.approx(0.4) and every["add"].recall == 1
    assert every["multiply"].f1 == 0 and every["all"].right == 2
    none = hits(head, tools, bias=-1e9)
    assert none["all"].recall == 0 and none["all"].precision != none["all"].precision


def test_a_head_is_a_few_kilobytes_and_a_subset_is_read_by_name(tmp_path):
    head = fresh_head([f"tool{n}" for n in range(13)], 64, seed=0)
    file = head.save(tmp_path)
    assert file.name == HEAD and file.stat().st_size < 4 * 13 * 64 + 500
    with safe_open(file, framework="pt") as opened:
        assert list(opened.keys()) == ["weight"]
    again = ToolHead.load(tmp_path)
    assert again.names == head.names and torch.equal(again.weight, head.weight)
    some = ToolHead.load(tmp_path, ["tool7", "tool2"])
    assert torch.equal(some.weight, head.weight[[7, 2]])
    with pytest.raises(ConfigError, match="'tool99'"):
        ToolHead.load(tmp_path, ["tool99"])
    with pytest.raises(DataError, match="no tool head"):
        ToolHead.load(tmp_path / "nowhere")


def test_a_tool_is_added_by_a_row_and_the_others_stay(model, tokenizer):
    head = fresh_head(TOOLS, 32, seed=0)
    more = head.appended("sqrt", described_row(model, tokenizer, "power"))
    assert more.names == (*TOOLS, "sqrt")
    assert torch.equal(more.weight[:3], head.weight)
    with pytest.raises(ConfigError, match="different tools"):
        head.appended("add", torch.zeros(32))
    with pytest.raises(ConfigError, match="empty"):
        described_row(model, tokenizer, "")


def test_a_merged_model_gives_the_same_logits_and_keeps_its_tokens(model, tokenizer, tmp_path):
    head = fresh_head(TOOLS, 32, seed=5)
    grown, wide, ids = merged(model, tokenizer, head)
    read = torch.tensor([tokenizer.encode("six times seven is ")])
    hidden, words = hidden_and_logits(model, read)
    got = grown(input_ids=read).logits
    assert torch.equal(got[..., : words.shape[-1]], words)
    assert torch.allclose(got[..., [ids[name] for name in TOOLS]], hidden @ head.weight.T, atol=1e-5)
    assert wide.encode("six times seven is ") == tokenizer.encode("six times seven is ")
    assert len(tokenizer) == len(wide) - 3
    grown.save_pretrained(tmp_path)
    wide.save_pretrained(tmp_path)
    from rl.models.load import load_model, load_tokenizer

    loaded = load_model(tmp_path).eval()
    assert torch.allclose(loaded(input_ids=read).logits, got, atol=1e-6)
    assert load_tokenizer(tmp_path).convert_tokens_to_ids("<|tool:add|>") == ids["add"]


@pytest.mark.parametrize("only_tools", [False, True])
def test_rows_that_are_learned_in_parts_are_those_of_one_process(places, only_tools):
    config = HeadFit(epochs=3, lr=0.05, batch_size=2, only_tools=only_tools, seed=4)
    start = fresh_head(TOOLS, places.hidden.shape[1], 0)
    alone, epochs = fit_head(start, places, config)
    kept = places.of_tools() if only_tools else places
    parts = [Shard(part) for part in kept.shards(3)]
    shared, told = fit_shared(start, kept, config, lambda rows, texts: [part.gradient(rows, texts) for part in parts])
    assert torch.allclose(shared.weight, alone.weight, atol=1e-5)
    assert [one.loss for one in told] == pytest.approx([one.loss for one in epochs], abs=1e-5)
