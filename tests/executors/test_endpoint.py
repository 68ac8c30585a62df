"""The endpoint client against a server over real HTTP: retries, time-outs, garbage, money and keys."""

import asyncio
import pickle
import socket
import time

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse

from executors.budget import BudgetError, Usage
from executors.endpoint import Endpoint, EndpointClient, RejectedError, consult
from executors.errors import ConfigError, TransientError
from executors.types import MalformedCall, ToolCall
from tests.executors.endpoints import completion, endpoint

CHAT = [{"role": "user", "content": "Hello."}]


def client(url: str, **settings) -> EndpointClient:
    defaults = {"retries": 2, "backoff": 0.001, "timeout": 5.0}
    return EndpointClient(Endpoint(base_url=url, model="m", **(defaults | settings)))


def refusal(status: int, message: str = "no", **headers: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status, headers=headers)


def call(name: str, arguments: str) -> dict:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


async def test_a_reply_has_its_text_its_end_its_tokens_and_its_cost():
    with endpoint("Good day.") as fake:
        asked = client(fake.url, prompt_price=1.0, completion_price=10.0)
        reply = await asked.chat(CHAT, temperature=0.5, stop=["\n"], seed=3, extra={"top_p": 0.9})
    assert (reply.text, reply.finish, reply.usage) == ("Good day.", "stop", Usage(100, 20))
    assert reply.cost == pytest.approx(300e-6)
    assert asked.spent.usd == pytest.approx(300e-6)
    assert (asked.spent.requests, asked.spent.tries) == (1, 1)
    body = fake.asked[0]
    assert body["messages"] == CHAT
    assert (body["temperature"], body["stop"], body["seed"], body["top_p"], body["max_tokens"]) == (
        0.5,
        ["\n"],
        3,
        0.9,
        1024,
    )
    assert "response_format" not in body
    assert "tools" not in body


async def test_tool_calls_are_read_and_those_that_are_not_json_objects_are_malformed():
    message = {"content": None, "tool_calls": [call("add", '{"a": 1}'), call("add", '{"a": '), call("add", "[1]")]}
    with endpoint(message) as fake:
        reply = await client(fake.url).chat(CHAT)
    assert reply.text == ""
    assert reply.finish == "tool_calls"
    assert reply.tool_calls[0] == ToolCall("add", {"a": 1})
    assert all(isinstance(found, MalformedCall) for found in reply.tool_calls[1:])


async def test_log_probabilities_come_with_their_tokens():
    body = completion("Hi!")
    body["choices"][0]["logprobs"] = {"content": [{"token": "Hi", "logprob": -0.5}, {"token": "!", "logprob": -1.0}]}
    with endpoint(JSONResponse(body)) as fake:
        reply = await client(fake.url).chat(CHAT, logprobs=True)
    assert fake.asked[0]["logprobs"] is True
    assert reply.logprobs == (("Hi", -0.5), ("!", -1.0))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_what_may_pass_is_tried_again(status):
    with endpoint(refusal(status), "now") as fake:
        asked = client(fake.url)
        assert await asked(CHAT) == "now"
    assert asked.spent.tries == 2


async def test_the_wait_that_a_server_asks_for_is_kept():
    with endpoint(refusal(429, **{"retry-after": "0.3"}), "now") as fake:
        started = time.monotonic()
        await client(fake.url).chat(CHAT)
    assert time.monotonic() - started >= 0.3


async def test_a_server_that_asks_for_too_long_a_wait_is_unavailable_at_once():
    answer = refusal(429, **{"retry-after": "3600"})
    with endpoint(answer) as fake, pytest.raises(TransientError, match="asks to wait 3600 s"):
        await client(fake.url).chat(CHAT)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("retry_after", ["soon", "nan", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "inf"])
async def test_a_wait_that_is_none_is_not_waited_for(retry_after):
    with endpoint(refusal(503, **{"retry-after": retry_after}), "now") as fake:
        assert await client(fake.url)(CHAT) == "now"


@pytest.mark.parametrize(
    "garbage",
    [
        Response("<html>", media_type="text/html"),
        Response("not json", media_type="application/json"),
        Response("[" * 100_000, media_type="application/json"),
        Response(b"\xff\xfe", media_type="application/json"),
        JSONResponse([1]),
        JSONResponse("text"),
        JSONResponse(None),
        JSONResponse({}),
        JSONResponse({"choices": []}),
        JSONResponse({"choices": [{}]}),
        JSONResponse({"choices": "none"}),
        JSONResponse({"choices": [{"message": {"content": {"a": 1}}}]}),
        JSONResponse({"choices": [{"message": {"content": "x", "tool_calls": [{}]}}]}),
        JSONResponse({"choices": [{"message": {"content": "x", "tool_calls": [call("f", None)]}}]}),  # type: ignore
    ],
    ids=range(14),
)
async def test_garbage_is_tried_again_and_then_unavailable(garbage):
    with endpoint(garbage) as fake:
        asked = client(fake.url, retries=1)
        with pytest.raises(TransientError, match="no usable reply in 2 tries"):
            await asked.chat(CHAT)
    assert len(fake.asked) == 2
    with endpoint(garbage, "better") as fake:
        assert await client(fake.url)(CHAT) == "better"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1000, "completion_tokens": "many"}])
async def test_a_reply_without_a_count_is_charged_at_its_most(usage):
    with endpoint(JSONResponse(completion("hi") | {"usage": usage})) as fake:
        asked = client(fake.url, completion_price=1.0, max_tokens=50)
        reply = await asked.chat(CHAT)
    assert reply.usage == Usage()
    assert reply.cost == asked.spent.usd == pytest.approx(50e-6)


async def test_a_server_that_hangs_is_given_up():
    with endpoint(30.0, "now") as fake:
        asked = client(fake.url, timeout=0.2)
        started = time.monotonic()
        assert await asked(CHAT) == "now"
    assert time.monotonic() - started < 5


async def test_a_refused_connection_is_unavailable_and_costs_nothing():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    asked = client(f"http://127.0.0.1:{port}/v1", prompt_price=1.0, max_usd=1.0)
    with pytest.raises(TransientError, match="no usable reply in 3 tries"):
        await asked.chat(CHAT)
    assert asked.spent.usd == 0
    assert asked.spent.tries == 3


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_the_server_rejects_is_not_sent_again(status):
    answer = refusal(status, "the prompt is too long")
    with endpoint(answer) as fake, pytest.raises(RejectedError, match="the prompt is too long"):
        await client(fake.url).chat(CHAT)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_an_endpoint_that_refuses_everything_is_a_config_error(status):
    with endpoint(refusal(status, "who are you")) as fake, pytest.raises(ConfigError, match="who are you"):
        await client(fake.url).chat(CHAT)
    assert len(fake.asked) == 1


async def test_the_key_comes_from_the_environment_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-secret-123")
    with endpoint("hi", refusal(401, "wrong key sk-secret-123")) as fake:
        asked = client(fake.url, key_env="TEST_KEY")
        await asked.chat(CHAT)
        with pytest.raises(ConfigError) as caught:
            await asked.chat(CHAT)
    assert fake.keys[0] == "Bearer sk-secret-123"
    assert "sk-secret" not in str(caught.value)
    assert "TEST_KEY" in str(caught.value)
    assert "sk-secret" not in repr(asked.endpoint)
    assert b"sk-secret" not in pickle.dumps(asked)


async def test_of_several_keys_one_that_is_refused_or_over_its_rate_gives_way_to_the_next(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-one, sk-two,sk-three")
    with endpoint(refusal(429, "slow down"), "a", "b", refusal(401, "sk-two is revoked"), "c") as fake:
        asked = client(fake.url, key_env="TEST_KEY", retries=0)
        assert [await asked(CHAT), await asked(CHAT), await asked(CHAT)] == ["a", "b", "c"]
    said = [key.removeprefix("Bearer sk-") for key in fake.keys]
    assert said == ["one", "two", "two", "two", "three"]

    with endpoint(refusal(403, "no, sk-one")) as fake:
        asked = client(fake.url, key_env="TEST_KEY")
        with pytest.raises(ConfigError, match="TEST_KEY") as refused:
            await asked(CHAT)
    assert len(fake.asked) == 3 and "sk-" not in str(refused.value)


def test_a_missing_key_names_its_variable(monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="export TEST_KEY="):
        client("http://localhost:1/v1", key_env="TEST_KEY")


async def test_no_key_of_someone_else_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-you")
    with endpoint("hi") as fake:
        await client(fake.url).chat(CHAT)
    assert fake.keys == ["Bearer none"]


async def test_a_request_that_could_break_the_budget_is_not_sent():
    with endpoint("hi") as fake:
        asked = client(fake.url, completion_price=1000.0, max_tokens=20, max_usd=0.05)
        await asked.chat(CHAT)  # 20 tokens: 0.02 dollars
        await asked.chat(CHAT)
        with pytest.raises(BudgetError, match=r"\$0.01.* is left of the budget of \$0.05"):
            await asked.chat(CHAT)
        assert len(fake.asked) == 2
        await asked.chat(CHAT, max_tokens=10)


async def test_requests_under_way_together_keep_to_the_budget():
    with endpoint("hi") as fake:
        asked = client(fake.url, completion_price=1000.0, max_tokens=20, max_usd=0.05)
        outcomes = await asyncio.gather(*(asked.chat(CHAT) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, BudgetError) for outcome in outcomes) == 6
    assert len(fake.asked) == 2
    assert asked.spent.usd <= 0.05


async def test_a_time_out_is_charged_at_its_most():
    with endpoint(30.0) as fake:
        asked = client(fake.url, timeout=0.1, retries=0, completion_price=1000.0, max_tokens=20)
        with pytest.raises(TransientError, match=r"no answer within 0\.1 s"):
            await asked.chat(CHAT)
    assert asked.spent.usd == pytest.approx(0.02)


async def test_requests_start_no_faster_than_they_may():
    with endpoint("hi") as fake:
        asked = client(fake.url, per_second=20)
        started = time.monotonic()
        await asyncio.gather(*(asked.chat(CHAT) for _ in range(5)))
    assert time.monotonic() - started >= 4 / 20


def test_one_client_serves_one_event_loop_after_another_and_other_processes():
    with endpoint("hi") as fake:
        asked = client(fake.url)
        assert [asyncio.run(asked(CHAT)) for _ in range(3)] == ["hi"] * 3
        copy = pickle.loads(pickle.dumps(asked))
        assert copy.endpoint == asked.endpoint
        assert asyncio.run(copy(CHAT)) == "hi"
        assert copy.spent.requests == 1


async def test_text_that_is_no_unicode_is_rejected():
    with endpoint("hi") as fake, pytest.raises(RejectedError, match="not Unicode"):
        await client(fake.url).chat([{"role": "user", "content": "\ud800"}])


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "localhost:8000"},
        {"base_url": "http://"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://user:secret@host/v1"},
        {"base_url": "http://host:99999/v1"},
        {"base_url": "http://[::1/v1"},
        {"model": ""},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"per_second": 0},
        {"max_usd": 1.0},
        {"max_usd": -1.0, "prompt_price": 1.0},
    ],
)
def test_settings_that_cannot_work_are_found_at_once(settings):
    with pytest.raises(ConfigError) as caught:
        Endpoint(**({"base_url": "http://localhost:8000/v1", "model": "m"} | settings))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("error", [ConfigError("no"), BudgetError("no"), RejectedError("no")])
async def test_a_model_that_cannot_be_asked_is_no_fault_of_the_call(error):
    async def model(messages, **options):
        raise error

    with pytest.raises(TransientError, match="no"):
        await consult(model, CHAT)
