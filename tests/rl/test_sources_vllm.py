"""vLLM's offline engine as a policy, against a stand-in for vLLM's interface: token ids in, token ids out."""

import asyncio
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from executors.errors import ConfigError
from rl.models.tiny import build_tokenizer
from rl.serving.vllm import VllmPolicy, require_vllm
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request
from rollouts.types import Completion, Sampling, Task

TOKENIZER = build_tokenizer(["What is 2 plus 3? Answer: 5"] * 3, markers=("Answer: ", ")->"), vocab_size=320)
LIMIT = 40


@dataclass
class Chance:
    logprob: float


class Engine:
    """Writes a fixed text and then ends, as vLLM's engine tells it."""

    model_config = SimpleNamespace(max_model_len=LIMIT)

    def __init__(self, text: str, *, reason: str = "stop", others: dict[int, Chance] | None = None) -> None:
        self.text = text
        self.others = others or {}
        self.ids = [*TOKENIZER.encode(text, add_special_tokens=False)]
        self.reason = reason
        self.asked: list = []

    async def generate(self, prompt, sampling, request_id):
        self.asked.append((prompt, sampling, request_id))
        ids = self.ids[: sampling.max_tokens]
        told = [{token: Chance(-1.0), **self.others} for token in ids]
        prompted = [None, *({token: Chance(-2.0)} for token in prompt["prompt_token_ids"][1:])]
        written = SimpleNamespace(token_ids=ids, logprobs=told, finish_reason=self.reason, text=self.text)
        yield SimpleNamespace(outputs=[written], prompt_logprobs=prompted)


@pytest.fixture
def _vllm(monkeypatch):
    fake = SimpleNamespace(SamplingParams=lambda **fields: SimpleNamespace(**fields))
    monkeypatch.setitem(sys.modules, "vllm", fake)


def request(*segments: str | Completion, **fields) -> Request:
    sampling = Sampling(max_tokens=24, temperature=0.5)
    return Request(task=Task(id="t", prompt=""), segments=segments, session="s", sampling=sampling, **fields)


@pytest.mark.usefixtures("_vllm")
def test_token_ids_go_in_and_come_out():
    engine = Engine("calculator(2+3)->5")
    policy = VllmPolicy("v", engine, TOKENIZER)
    first = asyncio.run(policy.complete(request("What?\n", stop=(")->",), seed=7)))
    assert (first.text, first.finish) == ("calculator(2+3)->", "stop")
    assert first.token_ids == tuple(engine.ids)
    assert first.logprobs == (-1.0,) * len(engine.ids)
    asyncio.run(policy.complete(request("What?\n", first, "5\n")))
    (prompt, sampling, name), (again, _, other) = engine.asked
    assert again["prompt_token_ids"] == [*prompt["prompt_token_ids"], *first.token_ids, *TOKENIZER.encode("5\n")]
    assert (sampling.temperature, sampling.seed, sampling.stop, sampling.max_tokens) == (0.5, 7, [")->"], 24)
    assert name != other


@pytest.mark.usefixtures("_vllm")
def test_what_was_forced_is_part_of_the_reply_and_not_of_what_is_learned():
    engine = Engine("5")
    reply = asyncio.run(VllmPolicy("v", engine, TOKENIZER).complete(request("What?\n", prefix="Answer: ")))
    assert (reply.text, reply.mask, reply.logprobs) == ("Answer: 5", (False, True), (-2.0, -1.0))
    assert engine.asked[0][1].prompt_logprobs == 0


@pytest.mark.usefixtures("_vllm")
def test_the_end_token_is_kept_and_not_told():
    engine = Engine("Answer: 5<end>")
    reply = asyncio.run(VllmPolicy("v", engine, TOKENIZER).complete(request("What?\n")))
    assert (reply.text, reply.finish) == ("Answer: 5", "end")
    assert reply.token_ids[-1] == TOKENIZER.eos_token_id


@pytest.mark.usefixtures("_vllm")
def test_limits_and_failures_are_typed():
    cut = asyncio.run(VllmPolicy("v", Engine("Answer: 5", reason="length"), TOKENIZER).complete(request("What?\n")))
    assert cut.finish == "length"
    with pytest.raises(PromptTooLongError, match="reads 40 at most"):
        asyncio.run(VllmPolicy("v", Engine("x"), TOKENIZER).complete(request("7" * LIMIT)))

    class Dead(Engine):
        async def generate(self, prompt, sampling, request_id):
            raise RuntimeError("the engine is dead")
            yield

    with pytest.raises(PolicyUnavailableError, match="the engine is dead"):
        asyncio.run(VllmPolicy("v", Dead("x"), TOKENIZER).complete(request("What?\n")))


@pytest.mark.usefixtures("_vllm")
def test_a_stop_token_ends_a_reply_and_what_cannot_be_told_is_refused():
    engine = Engine("Answer: 5")
    policy = VllmPolicy("v", engine, TOKENIZER)
    reply = asyncio.run(policy.complete(request("What?\n", stop_ids=(engine.ids[-1],))))
    assert (reply.text, reply.finish) == ("Answer: 5", "stop")
    assert engine.asked[0][1].stop_token_ids == [engine.ids[-1]]
    with pytest.raises(PolicyUnavailableError, match="without constraints and adapters"):
        asyncio.run(policy.complete(request("What?\n", adapter="terse")))


@pytest.mark.usefixtures("_vllm")
def test_the_likeliest_tokens_are_told_best_first_and_the_text_as_it_grows():
    engine = Engine("5", others={9: Chance(-0.5), 8: Chance(-3.0)})
    heard: list[str] = []
    asked = replace(request("What?\n", prefix="Answer: ", on_text=heard.append), sampling=Sampling(top_logprobs=2))
    reply = asyncio.run(VllmPolicy("v", engine, TOKENIZER).complete(asked))
    assert reply.top_logprobs[-1] == ((9, -0.5), (engine.ids[0], -1.0))
    assert len(reply.top_logprobs) == len(reply.token_ids) == 2
    assert heard == ["Answer: 5"]
    assert engine.asked[0][1].logprobs == 2


def test_without_vllm_the_error_names_the_ways_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match="start a vLLM server elsewhere"):
        require_vllm()
