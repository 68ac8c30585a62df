"""What the engine keeps, shares, evicts and lets wait."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from executors.errors import ConfigError
from rl.serving.engine import TransformersPolicy
from rl.serving.prompts import Prompt, Prompts
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request
from rollouts.types import Completion
from tests.rl.decoding import digits_tokenizer, greedy, loud, request, small_llama, together

PREAMBLE = "0123456789" * 10
PROMPTS = (PREAMBLE + "1 2?\n", PREAMBLE + "7 7 7?\n", "3?\n", "12 and 30?\n")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return digits_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer) -> PreTrainedModel:
    return small_llama(len(tokenizer))


def engine(model, tokenizer, **options) -> TransformersPolicy:
    return TransformersPolicy("tiny", model, tokenizer, **options)


def siblings(prompt: str, count: int, **fields) -> list[Request]:
    return [request(prompt, session=f"{prompt}/{seed}", temperature=1.0, seed=seed, **fields) for seed in range(count)]


async def ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_prompt_of_siblings_that_come_at_once_is_read_once(model, tokenizer):
    policy, size = engine(model, tokenizer), len(tokenizer.encode(PROMPTS[3]))
    replies = await together(policy, *siblings(PROMPTS[3], 8))
    assert (policy.counts.read, policy.counts.shared) == (size, 7 * size)
    for asked, reply in zip(siblings(PROMPTS[3], 8), replies, strict=True):
        assert reply.token_ids == (await engine(model, tokenizer).complete(asked)).token_ids
        assert reply.prompt_tokens == size
    assert len({reply.token_ids for reply in replies}) > 4


@pytest.mark.parametrize("ticks_between", [0, 1, 2, 5, 40])
async def test_prompt_is_shared_with_whoever_comes_later(model, tokenizer, ticks_between):
    policy, size = engine(model, tokenizer, max_read=40), len(tokenizer.encode(PROMPTS[0]))
    tasks = []
    for asked in siblings(PROMPTS[0], 3):
        tasks.append(asyncio.ensure_future(policy.complete(asked)))
        await ticks(ticks_between)
    replies = await asyncio.gather(*tasks)
    assert (policy.counts.read, policy.counts.shared) == (size, 2 * size)
    for asked, reply in zip(siblings(PROMPTS[0], 3), replies, strict=True):
        assert reply.token_ids == (await engine(model, tokenizer).complete(asked)).token_ids


@pytest.mark.parametrize("at_once", [True, False])
async def test_common_beginning_of_other_prompts_is_read_once(model, tokenizer, at_once):
    policy = engine(model, tokenizer)
    asked = [request(prompt) for prompt in PROMPTS[:2]]
    replies = await together(policy, *asked) if at_once else [await policy.complete(one) for one in asked]
    sizes = [len(tokenizer.encode(prompt)) for prompt in PROMPTS[:2]]
    assert policy.counts.shared == len(tokenizer.encode(PREAMBLE))
    assert policy.counts.read == sum(sizes) - policy.counts.shared
    for prompt, reply in zip(PROMPTS, replies, strict=False):
        assert list(reply.token_ids) == greedy(model, tokenizer.encode(prompt), 12, 2)


async def test_prompt_is_kept_across_rounds_until_the_weights_are_others(tokenizer):
    model, other = small_llama(len(tokenizer)), small_llama(len(tokenizer))
    loud(other, 1.1)
    policy, size = engine(model, tokenizer), len(tokenizer.encode(PROMPTS[0]))
    first = await policy.complete(request(PROMPTS[0], session="a"))
    again = await policy.complete(request(PROMPTS[0], session="b"))
    assert policy.counts.read == size
    assert again.token_ids == first.token_ids
    policy.load({name: value.detach().numpy() for name, value in other.named_parameters()}, 1)
    fresh = await policy.complete(request(PROMPTS[0], session="c"))
    assert policy.counts.read == 2 * size
    assert list(fresh.token_ids) == greedy(other, tokenizer.encode(PROMPTS[0]), 12, 2)
    assert fresh.token_ids != first.token_ids


async def test_weights_that_come_while_a_prompt_is_read_are_those_that_read_it(tokenizer):
    model, other = small_llama(len(tokenizer)), small_llama(len(tokenizer))
    loud(other, 1.1)
    policy = engine(model, tokenizer, max_read=40)
    task = asyncio.ensure_future(policy.complete(request(PROMPTS[0])))
    await ticks(3)
    assert 0 < policy.counts.read < len(tokenizer.encode(PROMPTS[0]))
    policy.load({name: value.detach().numpy() for name, value in other.named_parameters()}, 1)
    assert list((await task).token_ids) == greedy(other, tokenizer.encode(PROMPTS[0]), 12, 2)


async def test_reply_that_spans_two_weights_is_not_gone_on_with_from_memory(tokenizer):
    model, other = small_llama(len(tokenizer)), small_llama(len(tokenizer))
    loud(other, 1.1)
    policy = engine(model, tokenizer)
    task = asyncio.ensure_future(policy.complete(request(PROMPTS[2], session="s", max_tokens=8)))
    await ticks(4)
    policy.load({name: value.detach().numpy() for name, value in other.named_parameters()}, 1)
    first = await task
    second = await policy.complete(request(PROMPTS[2], first, "4\n", session="s", max_tokens=8))
    ids = tokenizer.encode(PROMPTS[2]) + list(first.token_ids) + tokenizer.encode("4\n")
    assert list(second.token_ids) == greedy(other, ids, 8, 2)


async def watched(policy: TransformersPolicy, episodes: Iterable) -> int:
    """Run episodes; the most that was kept or promised meanwhile."""
    running = asyncio.gather(*episodes)
    most = 0
    while not running.done():
        most = max(most, policy.cached_tokens)
        await asyncio.sleep(0)
    await running
    return most


@pytest.mark.parametrize("limit", [160, 220, 400])
async def test_what_is_kept_has_a_bound_and_whoever_is_evicted_is_read_again(model, tokenizer, limit):
    policy = engine(model, tokenizer, max_cached_tokens=limit)

    async def episode(number: int) -> None:
        prompt = PROMPTS[number % len(PROMPTS)]
        ids, segments = tokenizer.encode(prompt), [prompt]
        for turn in range(3):
            reply = await policy.complete(request(*segments, session=str(number), max_tokens=5))
            assert list(reply.token_ids) == greedy(model, ids, 5, 2)
            seen = str(number + turn) * 3
            segments += [reply, seen]
            ids = ids + list(reply.token_ids) + tokenizer.encode(seen)
            await ticks(number % 3)
        policy.release(str(number))

    assert await watched(policy, map(episode, range(9))) <= limit
    assert policy.counts.evicted > 0
    assert policy.counts.reread > 0
    assert policy.counts.failed == 0


async def test_requests_beyond_the_bound_wait_in_order(model, tokenizer):
    policy = engine(model, tokenizer, max_cached_tokens=60)
    finished: list[int] = []

    async def ask(number: int) -> None:
        await policy.complete(request(f"{number} is?\n", session=str(number), max_tokens=30))
        finished.append(number)

    assert await watched(policy, map(ask, range(6))) <= 60
    assert finished == list(range(6))


async def test_prompt_longer_than_all_that_may_be_kept_is_refused(model, tokenizer):
    policy = engine(model, tokenizer, max_cached_tokens=100)
    with pytest.raises(PromptTooLongError, match=r"takes 105 tokens and tiny reads \d\d at most"):
        await policy.complete(request(PROMPTS[0]))
    reply = await policy.complete(request("7" * 60, max_tokens=10_000))
    assert reply.finish == "length"
    assert list(reply.token_ids) == greedy(model, tokenizer.encode("7" * 60), len(reply.token_ids), 2)


@pytest.mark.parametrize("bound", ["max_rows", "max_cached_tokens", "max_read"])
def test_bound_that_lets_nothing_through_is_refused(model, tokenizer, bound):
    bounds: dict[str, Any] = {bound: 0}
    with pytest.raises(ConfigError, match=f"{bound} of tiny must be 1 or more, got 0"):
        TransformersPolicy("tiny", model, tokenizer, **bounds)


async def test_prompt_with_nothing_in_it_is_refused(model, tokenizer):
    with pytest.raises(PolicyUnavailableError, match="gives tiny nothing to read"):
        await engine(model, tokenizer).complete(request(""))


async def test_running_replies_go_on_while_a_long_prompt_is_read(model, tokenizer):
    policy = engine(model, tokenizer, max_read=8)
    long = asyncio.ensure_future(policy.complete(request(PROMPTS[0], session="long")))
    short = await policy.complete(request(PROMPTS[2], session="short", max_tokens=6))
    assert not long.done()
    assert list(short.token_ids) == greedy(model, tokenizer.encode(PROMPTS[2]), 6, 2)
    assert list((await long).token_ids) == greedy(model, tokenizer.encode(PROMPTS[0]), 12, 2)
    assert policy.counts.passes >= len(tokenizer.encode(PROMPTS[0])) // 8


async def test_long_observation_is_read_in_parts_and_right(model, tokenizer):
    policy = engine(model, tokenizer, max_read=50)
    first = await policy.complete(request(PROMPTS[2], session="s", max_tokens=4))
    asked = request(PROMPTS[2], first, PREAMBLE, session="s")
    other = request(PROMPTS[3], session="other")
    replies = await together(policy, asked, other)
    ids = tokenizer.encode(PROMPTS[2]) + list(first.token_ids) + tokenizer.encode(PREAMBLE)
    assert list(replies[0].token_ids) == greedy(model, ids, 12, 2)
    assert list(replies[1].token_ids) == greedy(model, tokenizer.encode(PROMPTS[3]), 12, 2)


async def test_cancelled_reply_frees_its_place_at_once(model, tokenizer):
    policy = engine(model, tokenizer, max_rows=1)
    first = asyncio.ensure_future(policy.complete(request(PROMPTS[2], session="a", max_tokens=200)))
    second = asyncio.ensure_future(policy.complete(request(PROMPTS[3], session="b", max_tokens=4)))
    await ticks(8)
    first.cancel()
    assert list((await second).token_ids) == greedy(model, tokenizer.encode(PROMPTS[3]), 4, 2)
    assert policy.counts.passes < 20


async def test_request_cancelled_while_it_waits_is_forgotten(model, tokenizer):
    policy = engine(model, tokenizer, max_rows=1, max_read=16)
    tasks = [asyncio.ensure_future(policy.complete(one)) for one in siblings(PROMPTS[0], 3, max_tokens=3)]
    await ticks(2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    reply = await policy.complete(request(PROMPTS[3]))
    assert list(reply.token_ids) == greedy(model, tokenizer.encode(PROMPTS[3]), 12, 2)
    assert policy.counts.read < len(tokenizer.encode(PROMPTS[0]))


async def test_failure_of_the_model_is_told_and_the_next_request_is_answered(tokenizer, monkeypatch):
    model = small_llama(len(tokenizer))
    policy = engine(model, tokenizer)
    embedding = model.get_input_embeddings()
    forward = embedding.forward

    def failing(*args, **kwargs):
        monkeypatch.setattr(embedding, "forward", forward)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(embedding, "forward", failing)
    results = await asyncio.gather(*map(policy.complete, siblings(PROMPTS[0], 2)), return_exceptions=True)
    assert [str(error) for error in results] == ["tiny failed: RuntimeError: out of memory"] * 2
    assert all(type(error) is PolicyUnavailableError for error in results)
    reply = await policy.complete(request(PROMPTS[0]))
    assert list(reply.token_ids) == greedy(model, tokenizer.encode(PROMPTS[0]), 12, 2)
    assert policy.counts.failed == 2


async def test_numbers_that_are_none_fail_their_own_request_and_no_other(tokenizer):
    torch.manual_seed(4)
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(**size, num_attention_heads=4, max_position_embeddings=256, eos_token_id=2)
    model = loud(LlamaForCausalLM(config))
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.encode("?")[0]] = torch.nan
    policy = engine(model, tokenizer)
    asked = [request(prompt, session=prompt) for prompt in ("12", "1?", "345", "1?3")]
    results = await asyncio.gather(*map(policy.complete, asked), return_exceptions=True)
    again = await asyncio.gather(*map(policy.complete, asked), return_exceptions=True)
    for prompt, one, other in zip(("12", "1?", "345", "1?3"), results, again, strict=True):
        if "?" in prompt:
            assert str(one).startswith("tiny gave no numbers (NaN) for task 'task' after 0 tokens")
            assert str(other) == str(one)
        else:
            assert isinstance(one, Completion)
            assert list(one.token_ids) == greedy(model, tokenizer.encode(prompt), 12, 2)
            assert isinstance(other, Completion)
            assert other.token_ids == one.token_ids


def test_prompts_that_nobody_holds_go_in_the_order_in_which_they_were_last_needed():
    table = Prompts(logits_cost=1)
    prompts = [Prompt("", tuple(range(start, start + 20))) for start in (0, 100, 200)]
    for prompt in prompts:
        table.hold(prompt)
        table.add(prompt)
        table.finish(prompt, torch.zeros(1))
        table.release(prompt)
    table.hold(prompts[0])
    table.release(prompts[0])
    assert (table.tokens, table.idle_tokens) == (63, 63)
    assert table.idle() is prompts[1]
    other = Prompt("", tuple(range(19)))
    assert table.longest(other) == (prompts[0], 18)
    assert table.longest(Prompt("lora", other.tokens)) == (None, 0)
    table.forget(prompts[0])
    assert table.longest(other) == (None, 0)
    table.hold(prompts[1])
    table.clear()
    assert (len(table), table.tokens, table.idle_tokens) == (0, 21, 0)
    table.release(prompts[1])
    assert table.tokens == 0
