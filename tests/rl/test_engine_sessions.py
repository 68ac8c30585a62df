"""What is kept of an episode between its turns: chat episodes end every reply with the end token."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.calculator import calculator
from executors.types import ToolCall
from rl.models.chat_template import build_chat_format
from rl.serving.engine import TransformersPolicy
from rollouts.episode import play
from rollouts.policy import PromptTooLongError, Request, Source
from rollouts.types import Completion, Sampling, Task
from tests.rl.chat_tokenizers import tokenizer_with
from tests.rl.decoding import digits_tokenizer, greedy, request, small_llama
from tests.rl.test_engine_models import build

PROMPT = "0123456789" * 4 + "?\n"
CATALOG = Catalog([calculator])
QUESTION = Task(id="q", prompt="What is 17 times 3, less 1, twice?", tools=("calculator",))


class Script:
    """A constraint that lets one reply be written and no other."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids

    def allowed(self, ids: Sequence[int]) -> Sequence[int] | None:
        return [self.ids[len(ids)]]


class Told:
    """The engine, made to write given replies token by token; notes what it read for each."""

    def __init__(self, policy: TransformersPolicy, replies: Sequence[str]) -> None:
        self.policy = policy
        self.name, self.version = policy.name, policy.version
        self.replies = [policy.tokenizer.encode(reply, add_special_tokens=False) for reply in replies]
        self.read: list[int] = []
        self.lengths: list[int] = []

    async def complete(self, request: Request) -> Completion:
        before = self.policy.counts.read
        completion = await self.policy.complete(replace(request, constraint=Script(self.replies[request.turn])))
        self.read.append(self.policy.counts.read - before)
        self.lengths.append(completion.prompt_tokens)
        return completion

    def release(self, session: str) -> None:
        self.policy.release(session)

    def load(self, weights, version: int) -> None:
        self.policy.load(weights, version)


@pytest.fixture(scope="module")
def chat_tokenizer() -> PreTrainedTokenizerBase:
    return tokenizer_with("qwen3")


def told(tokenizer: PreTrainedTokenizerBase, max_length: int = 2048) -> tuple[Told, list[str]]:
    """An engine that calls the calculator twice and answers."""
    format = build_chat_format(tokenizer)
    expressions = ("17*3", "51-1")
    calls = [format.write_call(ToolCall("calculator", {"expression": text}), ()) for text in expressions]
    replies = [*calls, format.write_answer("100")]
    return Told(TransformersPolicy("chat", small_llama(len(tokenizer), max_length), tokenizer), replies), replies


async def test_each_chat_turn_reads_only_what_is_new(chat_tokenizer):
    policy, replies = told(chat_tokenizer)
    format = build_chat_format(chat_tokenizer)
    source = Source(name="live", policy="chat", sampling=Sampling(max_tokens=200))
    episode = await play(QUESTION, policy, Executor(CATALOG), format, source=source)
    assert (episode.stop, episode.answer) == ("answer", "100")
    assert [turn.completion.finish for turn in episode.turns] == ["end"] * 3
    assert [f"{turn.completion.text}<|im_end|>" for turn in episode.turns] == replies
    observed = [chat_tokenizer.encode(format.observed(turn)) for turn in episode.turns[:2]]
    opening = chat_tokenizer.encode(format.opening(QUESTION, CATALOG.specs()))
    assert policy.read == [len(opening), *(1 + len(seen) for seen in observed)]  # the end token is read with them
    assert policy.lengths[2] == len(opening) + sum(map(len, (*observed, *policy.replies[:2])))
    assert policy.policy.counts.reread == policy.policy.counts.evicted == 0


async def test_chat_turns_say_what_reading_everything_anew_says(chat_tokenizer):
    policy, _ = told(chat_tokenizer)
    source = Source(name="live", policy="chat", sampling=Sampling(max_tokens=200))
    episode = await play(QUESTION, policy, Executor(CATALOG), build_chat_format(chat_tokenizer), source=source)
    other, _ = told(chat_tokenizer)
    segments: list[str | Completion] = [build_chat_format(chat_tokenizer).opening(QUESTION, CATALOG.specs())]
    for number, turn in enumerate(episode.turns):
        anew = await other.complete(request(*segments, session=str(number), max_tokens=200))
        assert anew.token_ids == turn.completion.token_ids
        assert anew.logprobs == pytest.approx(turn.completion.logprobs, abs=1e-4)
        segments += [turn.completion, build_chat_format(chat_tokenizer).observed(turn)] if turn.calls else []


async def test_an_episode_that_grows_past_the_context_ends_with_the_prompt_limit(chat_tokenizer):
    sizes = told(chat_tokenizer)[0]
    format = build_chat_format(chat_tokenizer)
    source = Source(name="live", policy="chat", sampling=Sampling(max_tokens=200))
    await play(QUESTION, sizes, Executor(CATALOG), format, source=source)
    limit = sizes.lengths[1]  # the second turn's prompt fills it
    policy, _ = told(chat_tokenizer, limit)
    episode = await play(QUESTION, policy, Executor(CATALOG), format, source=source)
    assert (episode.stop, episode.answer, len(episode.turns)) == ("prompt_limit", None, 1)
    assert episode.error == f"task 'q' takes {limit} tokens and chat reads {limit} at most"
    assert episode.finished
    longer, _ = told(chat_tokenizer, limit + 1)
    cut = await play(QUESTION, longer, Executor(CATALOG), format, source=source)
    assert (cut.stop, len(cut.turns), len(cut.turns[1].completion.token_ids)) == ("token_limit", 2, 1)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gptj", "mamba"])
async def test_a_later_turn_without_room_is_refused_by_name_whatever_the_model_keeps(name):
    model, tokenizer = build(name), digits_tokenizer()
    policy = TransformersPolicy(name, model, tokenizer, max_cached_tokens=120)
    first = await policy.complete(request(PROMPT, session="s", max_tokens=4))
    with pytest.raises(PromptTooLongError, match=rf"takes \d+ tokens and {name} reads \d+ at most"):
        await policy.complete(request(PROMPT, first, "7" * 200, session="s"))
    policy.release("s")
    assert (await policy.complete(request("3?\n", max_tokens=4))).token_ids


@pytest.mark.parametrize("name", ["llama", "gptj", "mamba", "openai_gpt"])
async def test_session_whose_past_is_rendered_otherwise_is_read_from_where_it_differs(name):
    """As with a template that leaves earlier thoughts out."""
    model, tokenizer = build(name), digits_tokenizer()
    policy = TransformersPolicy(name, model, tokenizer)
    first = await policy.complete(request(PROMPT, session="s", max_tokens=8))
    head, own = tokenizer.encode(PROMPT), list(first.token_ids)
    altered = replace(first, token_ids=(*own[:3], tokenizer.encode("9")[0]), text="")
    before = policy.counts.read
    second = await policy.complete(request(PROMPT, altered, "12", session="s", max_tokens=6))
    ids = [*head, *altered.token_ids, *tokenizer.encode("12")]
    anew = await TransformersPolicy(name, model, tokenizer).complete(
        request(PROMPT, altered, "12", session="anew", max_tokens=6)
    )
    assert second.token_ids == anew.token_ids
    same = 4 if own[3] == altered.token_ids[3] else 3
    read = {"llama": len(ids) - len(head) - same, "gptj": len(ids) - len(head) - same}
    assert policy.counts.read - before == read.get(name, len(ids))


async def test_end_token_is_read_with_what_follows_it(chat_tokenizer):
    """Greedily, so that nothing but the model chooses."""
    tokenizer = digits_tokenizer()
    model = small_llama(len(tokenizer))
    policy = TransformersPolicy("tiny", model, tokenizer)
    end = tokenizer.convert_tokens_to_ids(str(tokenizer.eos_token))
    first = await policy.complete(request(PROMPT, session="s", constraint=Script([*tokenizer.encode("42"), end])))
    assert (first.finish, first.token_ids[-1]) == ("end", end)
    before = policy.counts.read
    second = await policy.complete(request(PROMPT, first, "7\n", session="s"))
    assert policy.counts.read - before == 1 + len(tokenizer.encode("7\n"))
    ids = [*tokenizer.encode(PROMPT), *first.token_ids, *tokenizer.encode("7\n")]
    assert list(second.token_ids) == greedy(model, ids, 12, end)


async def test_what_ended_replies_keep_has_the_same_bound(chat_tokenizer):
    """Sessions that nobody releases, as of a caller that forgets to."""
    tokenizer = digits_tokenizer()
    policy = TransformersPolicy("tiny", small_llama(len(tokenizer)), tokenizer, max_cached_tokens=200)
    end = tokenizer.convert_tokens_to_ids(str(tokenizer.eos_token))
    for number in range(12):
        asked = request(f"{number} {PROMPT}", session=str(number), constraint=Script([5, end]))
        assert (await policy.complete(asked)).finish == "end"
        assert policy.cached_tokens <= 200
        await asyncio.sleep(0)
    assert policy.counts.evicted > 0
