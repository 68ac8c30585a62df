import itertools

import pytest
import torch

from rl.models.constrained import ToolConstraint, beam_search
from rl.models.tiny import build_model, build_tokenizer
from rl.models.trie import Trie
from rl.serving.engine import TransformersPolicy
from rollouts.policy import Request
from rollouts.types import Sampling, Task

SEQUENCES = [(10, 11), (10, 12, 13), (14,), (15, 11), (15, 12), (10, 12)]
TRIE = Trie(SEQUENCES)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["ask for the weather", "Action: go"], markers=["Action:"], vocab_size=300)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(len(tokenizer), width=32, layers=2, heads=2, max_length=64, seed=1).eval()


def test_only_whole_tools_and_then_an_end():
    constraint = ToolConstraint(TRIE, [2])
    assert constraint.allowed([]).tolist() == [10, 14, 15]
    assert constraint.allowed([10]).tolist() == [11, 12]
    assert constraint.allowed([10, 12]).tolist() == [2, 13]
    assert constraint.allowed([10, 12, 13]).tolist() == [2]
    assert constraint.allowed([14]).tolist() == [2]


def test_text_is_free_up_to_the_marker():
    constraint = ToolConstraint(TRIE, [2], marker=[7, 8])
    assert constraint.allowed([]) is None
    assert constraint.allowed([10]) is None
    assert constraint.allowed([10, 7]) is None
    assert constraint.allowed([10, 7, 8]).tolist() == [10, 14, 15]
    assert constraint.allowed([10, 7, 8, 14]).tolist() == [2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_an_engine_names_nothing_but_tools(model, tokenizer, temperature):
    policy = TransformersPolicy("p", model, tokenizer)
    for seed in range(8):
        request = Request(
            task=Task(id="t", prompt=""),
            segments=("ask for the weather",),
            session=f"s{seed}",
            sampling=Sampling(temperature=temperature, max_tokens=8),
            constraint=ToolConstraint(TRIE, [tokenizer.eos_token_id]),
            seed=seed,
        )
        completion = await policy.complete(request)
        assert completion.finish == "end"
        assert completion.token_ids[:-1] in SEQUENCES


@torch.no_grad()
def scored(model, prompt, sequence):
    ids = torch.tensor([[*prompt, *sequence]])
    likely = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(likely[len(prompt) - 1 + n, token]) for n, token in enumerate(sequence))


def test_a_wide_beam_finds_what_scoring_every_sequence_finds(model, tokenizer):
    sequences = [path for length in (1, 2, 3) for path in itertools.product(range(20, 24), repeat=length)]
    trie = Trie(sequences)
    prompt = tokenizer.encode("ask for the weather")
    found = beam_search(model, prompt, trie, beams=64)
    every = sorted(((scored(model, prompt, s), n) for n, s in enumerate(sequences)), reverse=True)
    assert [one.item for one in found[:10]] == [number for _, number in every[:10]]
    assert found[0].logprob == pytest.approx(every[0][0], abs=1e-4)


def test_single_tokens_are_ranked_exactly(model, tokenizer):
    prompt = tokenizer.encode("ask for the weather")
    found = beam_search(model, prompt, Trie([(token,) for token in range(30, 60)]), beams=5)
    logits = model(input_ids=torch.tensor([prompt])).logits[0, -1, 30:60]
    assert [one.item for one in found] == logits.topk(5).indices.tolist()


def test_no_more_is_found_than_there_is(model):
    assert {one.item for one in beam_search(model, [5, 6], Trie([(8,), (9, 10)]), beams=5)} == {0, 1}
