"""Packed reading against padded reading and against the model itself, on several architectures."""

import logging

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn.attention.flex_attention import create_mask
from transformers import AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from executors.errors import ConfigError
from rl.data.batch import PADDED, collate
from rl.data.examples import Example, Row
from rl.data.packing import Layout
from rl.learner import scoring
from rl.learner.blocks import Blocks
from rl.learner.learner import Learner
from rl.learner.scoring import Reading, Scorer
from rl.losses.objective import Rrhf, RrhfD, Sft
from rl.models.tiny import build_model
from tests.rl.test_learner import some_examples

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PACKED = {
    "Llama": {},
    "Qwen3": {},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},  # absolute positions
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},  # absolute positions, counted from a mask
    "Mistral": {"sliding_window": 4},
    "Gemma2": {"sliding_window": 4, "query_pre_attn_scalar": 8},  # windows in half of the layers, capped logits
    "Gemma3Text": {"sliding_window": 4, "query_pre_attn_scalar": 8},
    "Llama4Text": {"attention_chunk_size": 4, "num_local_experts": 2, "intermediate_size_mlp": 48},  # chunks
    "GptOss": {"sliding_window": 4, "num_local_experts": 4, "num_experts_per_tok": 2},  # sinks
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Granite": {"logits_scaling": 4.0},
}
PADDED_ONLY = {"Bloom": {}, "Mamba": {}}
"""Distances in the row instead of positions; a state that candidates would hand on."""
TIGHT = Layout(packed=True, pass_tokens=60)
SIDE_BY_SIDE = Layout(packed=True, pass_tokens=60, row_tokens=60)


def build(name: str, **options) -> PreTrainedModel:
    config = getattr(transformers, f"{name}Config")(**SHAPE, **(PACKED | PADDED_ONLY)[name], **options)
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(config)
    return made.eval()


def loss_of(candidates, padded_length: int, objective) -> torch.Tensor:
    return torch.stack([term.value for term in objective.terms(candidates, padded_length).values()]).sum()


def gradients(model: PreTrainedModel, examples, layout: Layout, objective) -> tuple[float, list[torch.Tensor]]:
    """By one graph of everything."""
    model.zero_grad()
    batch = collate(examples, 0, layout)
    loss = loss_of(batch.candidates(Scorer(model, 0).score(batch)), batch.padded_length, objective)
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def cached_gradients(model, examples, objective, max_tokens: int, **options):
    """As the learner takes them; and the reading that they come from."""
    model.zero_grad()
    scorer = Scorer(model, 0, max_tokens=max_tokens)
    scorer.__dict__["layout"] = TIGHT
    batch = scorer.lay_out(examples)
    reading = Reading(scorer, batch, **options)
    loss = loss_of(batch.candidates(reading.scores), batch.padded_length, objective)
    loss.backward()
    reading.backward()
    return float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None], reading


def assert_equal(one, other) -> None:
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    assert len(one[1]) == len(other[1])
    for left, right in zip(one[1], other[1], strict=True):
        assert torch.allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("layout", [TIGHT, SIDE_BY_SIDE], ids=["rows", "side by side"])
@pytest.mark.parametrize("name", PACKED)
def test_packed_loss_and_gradient_are_the_padded_ones(name, layout):
    model, examples = build(name), some_examples()
    assert Scorer(model, 0).layout.packed
    assert_equal(
        gradients(model, examples, PADDED, RrhfD(margin=3)), gradients(model, examples, layout, RrhfD(margin=3))
    )


@pytest.mark.parametrize("name", ["Llama", "Gemma3Text"])
def test_eager_attention_reads_packed_rows_too(name):
    model, examples = build(name, attn_implementation="eager"), some_examples()
    assert Scorer(model, 0).layout.packed
    assert_equal(gradients(model, examples, PADDED, Rrhf()), gradients(model, examples, TIGHT, Rrhf()))


@pytest.mark.parametrize("name", PACKED | PADDED_ONLY)
def test_scores_are_those_of_the_models_own_forward_pass(name):
    """Whatever a model does to its logits: caps, scales."""
    model = build(name)
    scorer = Scorer(model, 0)
    example = some_examples()[3]
    with torch.no_grad():
        scored = scorer.score(scorer.lay_out([example]))
        for place, row in enumerate(example.rows):
            logprobs = model(input_ids=torch.tensor([example.prompt + row.ids])).logits[0].log_softmax(-1)
            wanted = logprobs[len(example.prompt) - 1 : -1].gather(-1, torch.tensor(row.ids)[:, None]).squeeze(-1)
            assert torch.allclose(scored[0, place, : len(row.ids)], wanted * torch.tensor(row.mask), atol=1e-5)


@pytest.mark.parametrize("name", PADDED_ONLY)
def test_a_model_that_cannot_read_packed_rows_gets_padded_ones_and_the_log_says_so_once(name, caplog):
    learner = Learner(build(name), pad_id=0)
    with caplog.at_level(logging.WARNING):
        assert [piece.plain for piece in learner.lay_out(some_examples()).pieces] == [True]
        learner.lay_out(some_examples())
    (record,) = [record for record in caplog.records if record.name == "rl.learner.scoring"]
    assert (
        f"{name}ForCausalLM cannot read packed rows, so every candidate gets its own prompt: log-prob"
        in record.msg % (record.args)
    )


def test_a_model_that_cannot_read_packed_rows_refuses_to_be_told_to():
    with pytest.raises(ConfigError, match=r"learner.packing: BloomForCausalLM cannot read packed rows: .* take auto"):
        Learner(build("Bloom"), pad_id=0, packing="packed").lay_out(some_examples())


def test_trying_a_model_out_leaves_no_trace():
    model = build("GPT2").train()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert Scorer(model, 0).layout.packed
    assert torch.equal(torch.rand(1), expected)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("function", [causal_mask_function, sliding_window_causal_mask_function(3)])
def test_a_token_sees_its_prompt_and_its_own_candidate_by_their_own_distance(function):
    examples = some_examples(4)
    for piece in collate(examples, 0, SIDE_BY_SIDE).pieces:
        rows, width = piece.ids.shape
        window = 3 if function is not causal_mask_function else 10_000
        wanted = torch.zeros(rows, width, width, dtype=torch.bool)
        for row in range(rows):
            tokens = list(
                zip(*(t[row].tolist() for t in (piece.document, piece.candidate, piece.position)), strict=True)
            )
            for query, (document, candidate, place) in enumerate(tokens):
                for key, (other, origin, before) in enumerate(tokens):
                    related = document == other and origin in (0, candidate)
                    wanted[row, query, key] = related and place - window < before <= place
        with Blocks(piece).attending():
            made = AttentionMaskInterface()["sdpa"](
                batch_size=rows, q_length=width, kv_length=width, mask_function=function
            )
        assert torch.equal(made[:, 0], wanted)
        # FlexAttention asks the same function, about one pair at a time
        assert torch.equal(
            create_mask(Blocks(piece).over(function), rows, None, width, width, device="cpu")[:, 0], wanted
        )


def test_masks_that_are_made_outside_of_a_pass_are_the_usual_ones():
    model, ids = build("Llama"), torch.tensor([[5, 6, 7, 8]])
    (piece,) = collate(some_examples(1), 0, TIGHT).pieces
    before = model(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 0]])).logits
    with Blocks(piece).attending():
        pass
    assert torch.equal(model(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 0]])).logits, before)


@pytest.mark.parametrize("objective", [Rrhf(), RrhfD(margin=3), Sft(), Rrhf(length_norm="padded")])
@pytest.mark.parametrize("max_tokens", [40, 130])
def test_a_step_of_many_passes_has_the_gradient_of_one_graph(objective, max_tokens):
    model, examples = build("Llama"), some_examples(12)
    *cached, reading = cached_gradients(model, examples, objective, max_tokens=max_tokens)
    assert reading.again > 0
    assert_equal(gradients(model, examples, PADDED, objective), cached)


def test_activations_are_kept_only_within_the_budget(monkeypatch):
    model, examples = build("Llama"), some_examples(12)
    held: list[int] = []
    alive = 0
    read = Scorer.read

    def counted(self, piece):
        nonlocal alive
        chosen = read(self, piece)
        if chosen.requires_grad:
            alive += piece.positions
            held.append(alive)

            def released(gradient, size=piece.positions):
                nonlocal alive
                alive -= size

            chosen.register_hook(released)
        return chosen

    monkeypatch.setattr(Scorer, "read", counted)
    cached_gradients(model, examples, RrhfD(margin=3), max_tokens=130)
    assert max(held) <= 130 < sum(piece.positions for piece in collate(examples, 0, TIGHT).pieces)


def test_what_the_objective_leaves_alone_is_not_read_again(monkeypatch):
    reads: list[bool] = []
    read = Scorer.read
    monkeypatch.setattr(Scorer, "read", lambda self, piece: reads.append(torch.is_grad_enabled()) or read(self, piece))
    equal = [
        Example(e.task_id, e.prompt, tuple(Row(r.ids, r.mask, 1.0, r.called) for r in e.rows))
        for e in some_examples(12)
    ]
    loss, _, reading = cached_gradients(build("Llama"), equal, Rrhf(sft_weight=0), max_tokens=40)
    assert loss == 0.0
    assert len(reading._again) > 1
    assert reads == [False] * len(reading._again) + [True]


def test_dropout_draws_the_same_when_a_pass_is_read_again():
    model, examples = build("GPT2", embd_pdrop=0.3, resid_pdrop=0.3, attn_pdrop=0.0).train(), some_examples(12)
    made = []
    for kept in (1, 3, 1000):
        torch.manual_seed(5)
        *cached, reading = cached_gradients(model, examples, RrhfD(margin=3), max_tokens=60, kept=kept)
        made.append(cached)
    assert reading.again == 0
    assert_equal(made[0], made[2])
    assert_equal(made[1], made[2])


@pytest.mark.parametrize("name", ["Llama", "Gemma3Text"])
def test_gradient_checkpointing_keeps_masks_and_gradient(name):
    model, examples = build(name).train(), some_examples()
    expected = gradients(model, examples, PADDED, Rrhf())
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_equal(expected, gradients(model, examples, TIGHT, Rrhf()))


def test_a_model_with_adapters_reads_packed_rows():
    model = get_peft_model(build("Llama"), LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False))
    assert Scorer(model, 0).layout.packed
    one = gradients(model, some_examples(), PADDED, Rrhf())
    assert len(one[1]) == sum(p.requires_grad for p in model.parameters()) == 6
    assert_equal(one, gradients(model, some_examples(), TIGHT, Rrhf()))


def test_nothing_depends_on_the_token_that_fills_rows():
    model, examples = build("Llama"), some_examples()
    layouts = [PADDED, SIDE_BY_SIDE]
    for layout in layouts:
        zero, end = (Scorer(model, pad).score(collate(examples, pad, layout)) for pad in (0, 2))
        assert torch.equal(zero, end)


def test_half_precision_is_tried_out_by_what_matters():
    model = build("Llama").to(torch.bfloat16)
    assert Scorer(model, 0).layout.packed
    assert not Scorer(build("Mamba").to(torch.bfloat16), 0).layout.packed


def test_by_default_no_candidate_is_left_out_however_little_memory_there_is(monkeypatch):
    monkeypatch.setattr(scoring, "_MEMORY", 100_000)
    scorer = Scorer(build_model(300), 0)
    batch = scorer.lay_out(some_examples())
    assert scorer.budget < 10
    assert (batch.left_out, batch.count) == (0, sum(len(example.rows) for example in some_examples()))


def test_a_larger_vocabulary_or_a_deeper_model_has_a_smaller_budget():
    small = Scorer(build_model(300), 0).budget
    assert Scorer(build_model(3000), 0).budget < small
    assert Scorer(build_model(300, layers=8), 0).budget < small
