"""Policies behind OpenAI-compatible endpoints, over real HTTP: chats with tools, plain text, money, and failures."""

import asyncio
import json
import pickle

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse

from executors.catalog import Catalog
from executors.endpoint import Endpoint, EndpointClient
from executors.errors import ConfigError
from executors.executor import Executor
from executors.tool import tool
from executors.types import MalformedCall, ToolCall
from rl.serving.endpoint import EndpointPolicy
from rl.serving.policies import EndpointModel
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.formats.chat import ChatFormat
from rollouts.formats.inline import InlineFormat
from rollouts.formats.react import ReactFormat
from rollouts.formats.toolalpaca import ToolAlpacaFormat
from rollouts.policy import PolicyUnavailableError, Request, Source
from rollouts.types import Sampling, Task
from tests.executors.endpoints import completion, endpoint
from tests.rollouts.chat_templates import ChatMl, Strict


@tool(instant=True)
def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


@tool(instant=True)
def halve(number: int) -> int:
    """Half a number."""
    return number // 2


CATALOG = Catalog([double, halve])
TASK = Task(id="t", prompt="Twice four?", answer="8", tools=("double",))
BOTH = Task(id="t", prompt="Twice and half of four?", tools=("double", "halve"))
CHAT = ChatFormat(ChatMl())
FORMATS = [InlineFormat(), ReactFormat(), ToolAlpacaFormat(), ToolAlpacaFormat(variant="train_v2"), CHAT]


def wire_call(name: str = "double", arguments: str = '{"number": 4}') -> dict:
    return {"id": "x", "type": "function", "function": {"name": name, "arguments": arguments}}


def policy(url: str, format: Format, *, settings=None, **options) -> EndpointPolicy:
    defaults = {"retries": 1, "backoff": 0.001, "timeout": 5.0, "prompt_price": 1.0, "completion_price": 10.0}
    client = EndpointClient(Endpoint(base_url=url, model="m", **(defaults | (settings or {}))))
    return EndpointPolicy("teacher", client, format, CATALOG, **options)


def attempt(asked: EndpointPolicy, task: Task = TASK, **options):
    sampling = options.pop("sampling", Sampling(max_tokens=64))
    source = Source(name="teacher", policy="teacher", sampling=sampling, **options)
    return asyncio.run(play(task, asked, Executor(CATALOG), asked.format, source=source, seed=5))


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: f"{format.name}-{getattr(format, 'variant', '')}")
def test_a_teacher_calls_by_its_own_protocol_and_is_written_in_the_runs_format(format):
    with endpoint({"content": "I double it.", "tool_calls": [wire_call()]}, "It is 8.") as fake:
        episode = attempt(policy(fake.url, format))
    assert episode.turns[0].calls == (ToolCall("double", {"number": 4}),)
    assert (episode.observations[0].content, episode.answer, episode.stop) == ("8", "It is 8.", "answer")
    specs = CATALOG.specs(TASK.tools)
    for turn in episode.turns:
        assert format.parse(turn.completion.text, specs) == turn.calls
        assert (turn.completion.prompt_tokens, turn.completion.written_tokens) == (100, 20)
        assert turn.completion.cost == pytest.approx(300e-6)
        assert turn.completion.seconds > 0
    assert episode.turns[0].completion.finish == "stop"
    assert "I double it." in episode.turns[0].completion.text


def test_the_conversation_is_told_in_messages_with_arguments_as_json():
    with endpoint({"content": "I double it.", "tool_calls": [wire_call()]}, "It is 8.") as fake:
        attempt(policy(fake.url, CHAT, system="Be brief."), sampling=Sampling(temperature=0.5, top_k=9))
    first, second = fake.asked
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Twice four?"},
    ]
    said, seen = second["messages"][2:]
    assert (said["role"], said["content"]) == ("assistant", "I double it.")
    function = said["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("double", {"number": 4})
    assert (seen["role"], seen["content"]) == ("tool", "8")
    assert seen["tool_call_id"] == said["tool_calls"][0]["id"]
    assert [tool["function"]["name"] for tool in first["tools"]] == ["double"]
    assert (first["temperature"], first["top_k"], first["max_tokens"]) == (0.5, 9, 64)
    assert first["seed"] != second["seed"]
    assert "parallel_tool_calls" not in first


def test_several_calls_run_where_the_format_takes_them_and_are_malformed_where_it_does_not():
    message = {"content": None, "tool_calls": [wire_call("double"), wire_call("halve")]}
    with endpoint(message, "8 and 2.") as fake:
        both = attempt(policy(fake.url, CHAT), BOTH)
        assert [call.tool for call in both.turns[0].calls] == ["double", "halve"]
        assert [observation.content for observation in both.observations] == ["8", "2"]
        assert [message["role"] for message in fake.asked[1]["messages"]] == ["user", "assistant", "tool", "tool"]
    for format in (InlineFormat(), ChatFormat(Strict())):
        with endpoint(message, "8 and 2.") as fake:
            one = attempt(policy(fake.url, format), BOTH)
            assert fake.asked[0]["parallel_tool_calls"] is False
        assert one.malformed
        assert "make one at a time" in one.observations[0].content
        assert one.answer == "8 and 2."


def test_arguments_that_are_no_json_object_are_a_malformed_call_that_the_teacher_may_correct():
    broken = {"content": None, "tool_calls": [wire_call(arguments='{"number": ')]}
    with endpoint(broken, {"content": None, "tool_calls": [wire_call()]}, "8") as fake:
        episode = attempt(policy(fake.url, InlineFormat()))
    assert isinstance(episode.calls[0], MalformedCall)
    assert [observation.status for observation in episode.observations] == ["bad_call", "ok"]
    told = fake.asked[1]["messages"][1:]
    assert [message["role"] for message in told] == ["assistant", "user"]
    assert "not JSON" in told[1]["content"]


def test_a_reply_that_the_limit_cut_in_a_call_is_kept_as_malformed():
    reply = completion({"content": None, "tool_calls": [wire_call(arguments='{"num')]})
    reply["choices"][0]["finish_reason"] = "length"
    with endpoint(JSONResponse(reply)) as fake:
        episode = attempt(policy(fake.url, ReactFormat()))
    assert (episode.stop, episode.malformed) == ("token_limit", True)


@pytest.mark.parametrize(
    ("force", "task", "choice"),
    [
        ("direct", TASK, "none"),
        ("call", BOTH, "required"),
        ("call", TASK, {"type": "function", "function": {"name": "double"}}),
    ],
)
def test_a_forced_first_reply_is_a_tool_choice(force, task, choice):
    with endpoint({"content": None, "tool_calls": [wire_call()]}, "8") as fake:
        attempt(policy(fake.url, InlineFormat()), task, force=force)
    assert fake.asked[0]["tool_choice"] == choice
    assert "tool_choice" not in fake.asked[1]


@pytest.mark.parametrize(
    ("format", "call", "answer"),
    [
        (InlineFormat(), "double(4", "Answer: 8"),
        (ReactFormat(), 'Thought: so\nAction: double\nAction Input: {"number": 4}', "Final Answer: 8"),
        (
            ToolAlpacaFormat(),
            ' so\nASSISTANT Action: double\nASSISTANT Action Input: {"number": 4}',
            " \nASSISTANT Response: 8",
        ),
    ],
)
def test_in_text_mode_the_formats_own_words_are_sent_and_read(format, call, answer):
    """An endpoint leaves the stop string out of its reply; it is put back."""
    with endpoint(call, answer) as fake:
        episode = attempt(policy(fake.url, format, mode="text"))
    first, second = fake.asked
    assert first["messages"] == [{"role": "user", "content": format.opening(TASK, CATALOG.specs(TASK.tools))}]
    assert first["stop"] == list(format.stop)
    assert "tools" not in first
    assert episode.turns[0].completion.text == call + format.stop[0]
    assert second["messages"][0]["content"] == "".join(
        [first["messages"][0]["content"], call, format.stop[0], format.observed(episode.turns[0])]
    )
    assert (episode.answer, episode.stop) == ("8", "answer")


def test_a_chat_template_is_not_sent_to_another_model_as_text():
    with pytest.raises(ConfigError, match="mode 'tools'"):
        policy("http://localhost:1/v1", CHAT, mode="text")


def test_in_text_mode_a_forced_reply_goes_on_from_its_beginning():
    with endpoint("4", "Answer: 8") as fake:
        episode = attempt(policy(fake.url, InlineFormat(), mode="text"), force="call")
    assert fake.asked[0]["messages"][0]["content"].endswith("double(")
    assert episode.turns[0].completion.text == "double(4)->"


def test_log_probabilities_are_kept_where_they_are_given():
    reply = completion("8")
    reply["choices"][0]["logprobs"] = {"content": [{"token": "8", "logprob": -0.25, "bytes": None, "top_logprobs": []}]}
    with endpoint(JSONResponse(reply)) as fake:
        episode = attempt(policy(fake.url, InlineFormat(), logprobs=True))
    assert fake.asked[0]["logprobs"] is True
    assert episode.turns[0].completion.logprobs == (-0.25,)


GARBAGE = [
    Response("<html>busy</html>", 200, media_type="text/html"),
    Response(b"\xff\xfe\x00garbage", 200, media_type="application/json"),
    JSONResponse({"choices": []}),
    JSONResponse({"error": {"message": "slow down"}}, 429),
    JSONResponse({"error": {"message": "oops"}}, 500),
    JSONResponse({"error": {"message": "who are you"}}, 401),
]


@pytest.mark.parametrize("answer", GARBAGE, ids=["html", "bytes", "no choices", "429", "500", "401"])
def test_an_endpoint_that_gives_nothing_of_use_fails_the_episode_and_says_why(answer):
    with endpoint(answer) as fake:
        episode = attempt(policy(fake.url, InlineFormat()))
    assert (episode.stop, episode.turns) == ("failed", ())
    assert "m at http://" in episode.error


def test_an_endpoint_that_is_not_there_or_hangs_fails_the_episode():
    gone = attempt(policy("http://127.0.0.1:9/v1", InlineFormat()))
    with endpoint(30.0) as fake:
        late = attempt(policy(fake.url, InlineFormat(), settings={"timeout": 0.05}))
    assert gone.stop == late.stop == "failed"
    assert "no answer within 0.05 s" in late.error


def test_what_passes_is_tried_again():
    with endpoint(JSONResponse({"error": {"message": "slow down"}}, 429), "8") as fake:
        episode = attempt(policy(fake.url, InlineFormat()))
    assert (episode.answer, len(fake.asked)) == ("8", 2)


def test_a_prompt_that_the_endpoint_cannot_read_is_the_prompt_limit():
    refusal = {
        "error": {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}
    }
    with endpoint(JSONResponse(refusal, 400)) as fake:
        episode = attempt(policy(fake.url, InlineFormat()))
    assert (episode.stop, episode.turns, episode.finished) == ("prompt_limit", (), True)
    with endpoint(JSONResponse({"error": {"message": "unknown field"}}, 400)) as fake:
        assert attempt(policy(fake.url, InlineFormat())).stop == "failed"


def test_a_spent_budget_fails_the_episode_before_anything_is_sent():
    with endpoint("8") as fake:
        poor = policy(fake.url, InlineFormat(), settings={"max_usd": 0.0005, "completion_price": 1.0})
        episodes = [attempt(poor) for _ in range(4)]
    assert [episode.stop for episode in episodes][-1] == "failed"
    assert "left of the budget" in episodes[-1].error
    assert poor.client.spent.usd <= 0.0005
    assert len(fake.asked) == sum(episode.stop == "answer" for episode in episodes)


def test_a_reply_with_half_a_character_is_read_and_kept():
    with endpoint({"content": "8 \ufffd", "tool_calls": None}) as fake:
        episode = attempt(policy(fake.url, InlineFormat()))
    assert episode.answer == "8 \ufffd"
    episode.text.encode()


def test_the_builder_travels_and_builds_elsewhere():
    with endpoint("8") as fake:
        made = EndpointModel(
            name="teacher", endpoint=Endpoint(base_url=fake.url, model="m"), format=InlineFormat(), catalog=Catalog([])
        )
        built = pickle.loads(pickle.dumps(made))()
        task = Task(id="t", prompt="?")
        episode = asyncio.run(play(task, built, Executor(Catalog([])), InlineFormat()))
    assert (episode.answer, episode.policy) == ("8", "teacher")
    assert "tools" not in fake.asked[0]


@pytest.mark.parametrize("arguments", ['{"number": NaN}', '{"number": 1e999}', '{"number": "\\ud800"}'])
def test_arguments_that_no_log_can_hold_are_a_malformed_call_that_the_teacher_may_correct(arguments):
    with endpoint({"content": None, "tool_calls": [wire_call(arguments=arguments)]}, "8") as fake:
        episode = attempt(policy(fake.url, ReactFormat()))
    (call,) = episode.calls
    assert isinstance(call, MalformedCall) and call.error.startswith("the arguments of double are not JSON")
    assert (episode.stop, episode.answer) == ("answer", "8")


def test_half_a_surrogate_pair_in_a_reply_is_replaced_and_the_episode_goes_on():
    answers: list[dict | str] = [{"content": "I double \ud800", "tool_calls": [wire_call()]}, "8\udc00"]
    escaped = [Response(json.dumps(completion(answer)), media_type="application/json") for answer in answers]
    with endpoint(*escaped) as fake:
        episode = attempt(policy(fake.url, InlineFormat()))
    assert (episode.stop, episode.answer) == ("answer", "8?")
    assert "I double ?" in [message["content"] for message in fake.asked[1]["messages"]]


@pytest.mark.parametrize(
    "asked",
    [
        {"adapter": "a"},
        {"stop_ids": (1,)},
        {"sampling": Sampling(logit_bias={1: 1.0})},
        {"sampling": Sampling(top_logprobs=2)},
    ],
)
def test_what_an_endpoint_cannot_honour_is_refused_before_it_is_asked(asked):
    with endpoint("8") as fake:
        with pytest.raises(PolicyUnavailableError, match="takes no tokens, biases or adapters"):
            asyncio.run(
                policy(fake.url, InlineFormat()).complete(Request(task=TASK, segments=("?",), session="s", **asked))
            )
        assert not fake.asked
