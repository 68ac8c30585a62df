"""Prompts that begin alike and go on in their own ways: the beginning is read once and attended where it lies."""

import pytest
import torch

from rl.serving.engine import TransformersPolicy
from rl.serving.passes import PackedModel
from tests.rl.decoding import digits_tokenizer, greedy, request, small_llama, together

PREAMBLE = "8675309 0123 " * 22
LENGTH = 400


@pytest.fixture(scope="module")
def tokenizer():
    return digits_tokenizer(LENGTH)


@pytest.fixture
def policy(tokenizer) -> TransformersPolicy:
    return TransformersPolicy("tiny", small_llama(len(tokenizer), LENGTH), tokenizer)


def asked(number: int, session: str = ""):
    return request(f"{PREAMBLE}{number * 7919 + 13} and {number}?\n", session=session or f"s{number}", max_tokens=10)


def alone(policy, tokenizer, number: int) -> list[int]:
    (text,) = asked(number).segments
    return greedy(policy.model, tokenizer.encode(text), 10, 2)


async def test_replies_are_those_of_each_prompt_alone_and_the_beginning_is_read_once(policy, tokenizer, monkeypatch):
    groups: list[set[int]] = []
    reading = PackedModel.read

    def watched(self, tails, rows, strips, asked):
        groups.append({id(row.prefix) for row in rows if row.prefix})
        return reading(self, tails, rows, strips, asked)

    monkeypatch.setattr(PackedModel, "read", watched)
    await policy.complete(asked(0))
    before = policy.counts.copy()
    groups.clear()
    replies = await together(policy, *(asked(number) for number in range(1, 9)))
    spent = policy.counts - before
    assert [list(reply.token_ids) for reply in replies] == [alone(policy, tokenizer, n) for n in range(1, 9)]
    size = len(tokenizer.encode(PREAMBLE))
    assert spent.shared >= 8 * (size - 1) and spent.read <= 8 * 20
    assert max(len(group) for group in groups) <= 2
    again = await together(policy, *(asked(number, f"t{number}") for number in (3, 5)))
    assert [list(reply.token_ids) for reply in again] == [alone(policy, tokenizer, n) for n in (3, 5)]


async def test_a_session_goes_on_behind_a_shared_beginning(policy, tokenizer):
    await policy.complete(asked(0))
    reply = await policy.complete(asked(1))
    (text,) = asked(1).segments
    before = policy.counts.copy()
    following = request(text, reply, "42\n", session="s1", max_tokens=10)
    written = await policy.complete(following)
    ids = [*tokenizer.encode(text), *reply.token_ids, *tokenizer.encode("42\n")]
    assert list(written.token_ids) == greedy(policy.model, ids, 10, 2)
    assert (policy.counts - before).read <= 6
    policy.release("s1")


async def test_new_weights_forget_the_beginning_and_what_is_kept_has_a_bound(policy, tokenizer):
    for number in range(4):
        await policy.complete(asked(number))
    weights = {name: value.detach().numpy().copy() for name, value in policy.model.named_parameters()}
    policy.load({name: value * 0.5 if value.ndim > 1 else value for name, value in weights.items()}, 1)
    assert policy.cached_tokens < 200
    assert list((await policy.complete(asked(9))).token_ids) == alone(policy, tokenizer, 9)
    small = TransformersPolicy("small", policy.model, tokenizer, max_cached_tokens=900)
    with torch.inference_mode():
        for number in range(12):
            other = f"{number}{PREAMBLE[1:]}"
            reply = await small.complete(request(f"{other}{number}?\n", session=f"a{number}", max_tokens=4))
            assert list(reply.token_ids) == greedy(small.model, tokenizer.encode(f"{other}{number}?\n"), 4, 2)
            await small.complete(request(f"{other}5{number}?\n", session=f"b{number}", max_tokens=4))
            assert small.cached_tokens <= 900
