import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from executors.errors import ConfigError, UnknownToolError
from executors.names import Identity, Names
from rl.data.examples import Example, Row
from rl.data.tasks.toolbench import legacy_name, virtual_tokens
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Sft
from rl.models.choice import Adapter
from rl.models.load import is_adapter, load_merged, load_model
from rl.models.lora import adapter_names
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_head import input_matrix, output_matrix
from rl.models.tool_tokens import ToolTokens, add_tool_tokens, clustered, index_tools, label
from tests.executors.shared_data import shared

IDENTITIES = [
    Identity("weather now", "Open Sky"),
    Identity("weather tomorrow", "Open Sky"),
    Identity("exchange rates", "Coins"),
    Identity("a&&b", "Odd"),
    Identity("Finish"),
]


@pytest.fixture
def tools():
    names = Names(IDENTITIES)
    return {names[identity]: identity for identity in IDENTITIES}


@pytest.fixture
def tokenizer():
    texts = ["weather now and tomorrow from the open sky", "exchange rates of coins", "0 1 2 3 4 5 6 7 8 9"]
    return build_tokenizer(texts, vocab_size=340)


@pytest.mark.parametrize("indexing", ["atomic", "semantic", "numeric", "hierarchical"])
def test_every_kind_of_text_leads_to_its_tool_and_back(indexing, tools, tokenizer):
    about = {name: f"{tools[name].raw} of {tools[name].owner}" for name in tools}
    tokens = index_tools(tools, indexing, descriptions=about)
    assert [tokens.tool(tokens.texts[name]) for name in tools] == list(tools)
    assert tokens.tools == {text: name for name, text in tokens.texts.items()}
    if indexing == "atomic":
        add_tool_tokens(build_model(len(tokenizer), width=16, heads=2), tokenizer, list(tokens.texts.values()))
    trie = tokens.trie(tokenizer)
    for number, ids in enumerate(tokens.ids(tokenizer)):
        assert trie.item(trie.walk(ids) or 0) == number
    with pytest.raises(UnknownToolError):
        tokens.tool("<<nobody>>")


def test_labels_are_toolgen_s_and_those_alike_take_their_names(tools):
    assert label(IDENTITIES[0]) == "<<Open Sky&&weather now>>"
    assert label(Identity("Finish")) == "<<Finish>>"
    twins = {"one": Identity("x", "y", "1"), "two": Identity("x", "y", "2")}
    assert index_tools(twins, "atomic").texts == {"one": "<<one>>", "two": "<<two>>"}
    with pytest.raises(ConfigError, match="share"):
        ToolTokens("atomic", {"one": "a", "two": "a"})


def test_hierarchical_paths_are_prefix_free_and_keep_alike_texts_together():
    topics = ["weather rain wind", "currency exchange coin", "football match score", "recipe cook oven"]
    texts = [f"{topic} number {n}" for n in range(30) for topic in topics]
    paths = clustered(texts, seed=0)
    assert len(set(paths)) == len(texts)
    prefixes = {path[:end] for path in paths for end in range(1, len(path))}
    assert not prefixes & set(paths)
    assert max(digit for path in paths for digit in path) <= 9
    by_first: dict[int, Counter] = {}
    for text, path in zip(texts, paths, strict=True):
        by_first.setdefault(path[0], Counter())[text.split()[0]] += 1
    pure = sum(counts.most_common(1)[0][1] for counts in by_first.values())
    assert pure / len(texts) > 0.9
    assert len(set(clustered(["the same words"] * 25))) == 25


def test_hierarchical_indexing_asks_for_descriptions(tools):
    with pytest.raises(ConfigError, match="has none"):
        index_tools(tools, "hierarchical")


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_begin_as_the_mean_of_their_words_in_both_matrices(tied, tokenizer):
    model = build_model(len(tokenizer), width=16, heads=2)
    if not tied:
        config = type(model.config).from_dict({**model.config.to_dict(), "tie_word_embeddings": False})
        model = type(model)(config)
    before = [matrix.clone() for matrix in (input_matrix(model), output_matrix(model))]
    words = tokenizer.encode("Open Sky weather now")
    ids = add_tool_tokens(model, tokenizer, ["<<Open Sky&&weather now>>", "<<Coins&&rates>>"])
    for matrix, old in zip((input_matrix(model), output_matrix(model)), before, strict=True):
        assert torch.allclose(matrix[ids["<<Open Sky&&weather now>>"]], old[words].mean(0), atol=1e-6)
        assert torch.equal(matrix[: len(old)], old)
        assert len(matrix) == len(tokenizer)
    assert tokenizer.encode("call <<Coins&&rates>>")[-1] == ids["<<Coins&&rates>>"]
    with pytest.raises(ConfigError, match="a token already"):
        add_tool_tokens(model, tokenizer, ["<<Coins&&rates>>"])


def test_all_of_toolgen_s_tools_are_added_in_a_minute_and_three_gigabytes():
    identities = virtual_tokens(shared("toolgen", "virtual_tokens.txt"))
    names = Names(identities)
    tokenizer = build_tokenizer([identity.raw for identity in identities[:2000]], vocab_size=1024)
    model = build_model(len(tokenizer), width=64, heads=2)
    plain = len(tokenizer)
    began, before = time.process_time(), psutil.Process().memory_info().rss
    tokens = index_tools({names[identity]: identity for identity in identities}, "atomic")
    ids = add_tool_tokens(model, tokenizer, list(tokens.texts.values()))
    trie = tokens.trie(tokenizer)
    assert time.process_time() - began < 60
    assert psutil.Process().memory_info().rss - before < 3 * 2**30
    assert len(set(ids.values())) == len(trie) == len(tokenizer) - plain == 46985
    assert trie.num_bytes < 2**20
    assert tokens.texts[names[Identity("Finish")]] == "<<Finish>>"


def test_154_of_toolgen_s_own_names_stand_for_several_tools_and_none_of_ours():
    identities = virtual_tokens(shared("toolgen", "virtual_tokens.txt"))
    theirs = Counter(legacy_name(i.owner, i.raw) for i in identities if i.owner)
    assert sum(count > 1 for count in theirs.values()) == 154
    assert (sum(theirs.values()), len(theirs)) == (46984, 46732)
    assert len(set(Names(identities).values())) == 46985


def untied(model):
    config = type(model.config).from_dict({**model.config.to_dict(), "tie_word_embeddings": False})
    apart = type(model)(config)
    apart.load_state_dict(model.state_dict(), strict=False)
    return apart


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_trained_saved_and_merged_with_an_adapter(tmp_path, tied):
    tokenizer = build_tokenizer(["which tool tells the weather"], vocab_size=300)
    model = build_model(len(tokenizer), width=32, layers=1, heads=2, seed=1)
    model = model if tied else untied(model)
    assert model.config.tie_word_embeddings is tied
    rows = list(add_tool_tokens(model, tokenizer, ["<<Sky&&weather>>", "<<Coins&&rates>>"]).values())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = checkpoint.begin(tmp_path, model, tokenizer, adapter=Adapter(r=2), rows=rows)
    ids = tokenizer.encode("which<<Sky&&weather>>tool", add_special_tokens=False)
    row = Row((*ids, *rows), (True,) * (len(ids) + 2), 1.0, True)
    optimiser = OptimiserConfig(kind="adamw", lr=1e-2)
    stage = Stage(name="s", objective=Sft(), optimiser=optimiser, steps=3)
    examples = (Example("a", (tokenizer.bos_token_id or 0,), (row,)),)
    job = AloneJob(start=str(start), folder=str(tmp_path), examples=examples, stage=stage, batch_size=1, seed=0)
    done = Path(fit_alone(job).path)
    assert is_adapter(done) and (done / "adapter_model.safetensors").stat().st_size < 40_000
    trained, merged = load_model(done).eval(), load_merged(done).eval()
    saved = load_file(done / "adapter_model.safetensors")
    for name, value in saved.items():
        if "trainable_tokens" in name:
            assert torch.equal(
                dict(trained.named_parameters())[f"{name.removeprefix('base_model.model.')}.default"], value
            )
    with torch.no_grad():
        said = [each(torch.tensor([[*ids, *rows]])).logits for each in (trained, merged)]
    assert torch.allclose(*said, atol=1e-5)
    for matrix, name in (
        (input_matrix(merged), "model.embed_tokens.weight"),
        (output_matrix(merged), "lm_head.weight"),
    ):
        moved = (matrix - before[name]).abs().sum(-1) > 0
        assert moved.nonzero().squeeze(-1).tolist() == sorted(rows)
    assert (input_matrix(merged).data_ptr() == output_matrix(merged).data_ptr()) is tied
    merged.save_pretrained(tmp_path / "plain")
    assert torch.allclose(
        load_model(tmp_path / "plain").eval()(torch.tensor([ids])).logits, merged(torch.tensor([ids])).logits
    )


def test_rows_may_be_left_as_they_began(tmp_path):
    tokenizer = build_tokenizer(["which tool"], vocab_size=300)
    model = build_model(len(tokenizer), width=32, layers=1, heads=2, seed=1)
    rows = list(add_tool_tokens(model, tokenizer, ["<<Sky&&weather>>"]).values())
    checkpoint.begin(tmp_path, model, tokenizer, adapter=Adapter(r=2, rows=False), rows=rows)
    assert all("lora" in name for name in adapter_names(model))
