"""The endpoint over HTTP with a tiny model, asked by the official client and an MCP client."""

import concurrent.futures
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import openai
import pytest
import uvicorn
from mcp import Client
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as response_params
from pydantic import BaseModel

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tool import tool
from executors.tools.calculator import calculator
from executors.types import ToolCall
from rl.models.tiny import build_model, build_tokenizer
from rl.serving.chat import ChatServer
from rl.serving.completions import CompletionRequest
from rl.serving.engine import TransformersPolicy
from rl.serving.execution import Execution
from rl.serving.http import ChatEngine, build_api
from rl.serving.responses import ResponseRequest
from rl.serving.tools import together
from rl.serving.weights import OneServer
from rl.serving.wire import ChatError, ChatRequest, read
from rollouts.formats import Format
from rollouts.formats.chat import ChatFormat
from rollouts.formats.inline import InlineFormat
from rollouts.policy import Policy, PolicyUnavailableError, Request, ScriptedPolicy
from rollouts.types import Completion
from tests.rollouts.chat_templates import ChatMl

MODEL = "tiny"
QUESTION = "What is 2 plus 3?"


@tool
def lookup(title: str, page: int = 1) -> str:
    """Look something up."""
    return f"{title} {page}"


CATALOG = Catalog([calculator, lookup])
CALCULATOR, LOOKUP = (spec.as_openai() for spec in CATALOG.specs())


def flat(offered: dict) -> dict:
    """A tool as the responses' requests have it."""
    return {"type": "function", "strict": False, **offered["function"]}


class Listening:
    """An app on a port of its own, in a thread."""

    def __init__(self, server: ChatServer) -> None:
        model = {"id": MODEL, "object": "model", "tools": [CALCULATOR, LOOKUP]}
        executor = server.execution.executor if server.execution else None
        api = build_api(ChatEngine(OneServer(server, model)), executor=executor)
        config = uvicorn.Config(api, port=0, log_level="error", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=30
        )

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(10)


class Typing(ScriptedPolicy):
    """Writes its script's replies a few characters at a time."""

    def __init__(self, *replies: str) -> None:
        super().__init__(MODEL, lambda task: replies)
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        completion = await super().complete(request)
        for end in range(1, len(completion.text), 2):
            if request.on_text is not None:
                request.on_text(completion.text[:end])
        return Completion(text=completion.text, finish=completion.finish, token_ids=(5, 6), prompt_tokens=9)


@pytest.fixture(scope="module")
def policy() -> TransformersPolicy:
    texts = ['{"name": "Ann", "age": 3, "tags": ["a"]}', QUESTION, "Hello you"] * 3
    tokenizer = build_tokenizer(texts, markers=InlineFormat().markers(CATALOG.specs()), vocab_size=320)
    return TransformersPolicy(MODEL, build_model(len(tokenizer), width=32, max_length=512), tokenizer, version=7)


@pytest.fixture(scope="module")
def tiny(policy: TransformersPolicy) -> Iterator[openai.OpenAI]:
    listening = Listening(ChatServer(policy, InlineFormat(), CATALOG.specs()))
    yield listening.client
    listening.stop()


@pytest.fixture
def serve() -> Iterator:
    """Puts a policy behind HTTP; what it returns is the official client."""
    started: list[Listening] = []

    def begin(policy: Policy, format: Format = InlineFormat(), **options) -> openai.OpenAI:
        started.append(Listening(ChatServer(policy, format, CATALOG.specs(), **options)))
        return started[-1].client

    yield begin
    for listening in started:
        listening.stop()


def executing(**limits) -> Execution:
    return Execution(executor=Executor(CATALOG, **limits), max_turns=3)


def asked(question: str = QUESTION) -> dict[str, str]:
    return {"role": "user", "content": question}


def called() -> dict:
    function = {"name": "calculator", "arguments": '{"expression": "2+3"}'}
    return {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def refused(call, status: int = 400) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    assert caught.value.status_code == status
    return caught.value


# Completions


def test_a_completion_goes_on_with_the_text_as_it_is(tiny, policy):
    whole = tiny.completions.create(model=MODEL, prompt="Hello", max_tokens=8, temperature=1, seed=5)
    chunks = list(
        tiny.completions.create(
            model=MODEL,
            prompt=policy.tokenizer.encode("Hello"),
            max_tokens=8,
            temperature=1,
            seed=5,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.model_dump(exclude_none=True) == chunks[-1].usage.model_dump(exclude_none=True)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    assert (whole.usage.completion_tokens, whole.system_fingerprint) == (8, "v7")


def test_prompts_of_every_kind_are_answered_each_for_itself(tiny, policy):
    ids = policy.tokenizer.encode("Hello")
    alone = [
        tiny.completions.create(model=MODEL, prompt=prompt, max_tokens=4).choices[0].text for prompt in ("Hello", "you")
    ]
    together = tiny.completions.create(model=MODEL, prompt=["Hello", "you"], n=2, max_tokens=4)
    assert [choice.text for choice in together.choices] == [alone[0]] * 2 + [alone[1]] * 2
    assert [choice.index for choice in together.choices] == [0, 1, 2, 3]
    both = tiny.completions.create(model=MODEL, prompt=[ids, ids], max_tokens=4)
    assert [choice.text for choice in both.choices] == [alone[0]] * 2


def test_log_probabilities_of_a_completion_have_the_older_form(tiny):
    (choice,) = tiny.completions.create(model=MODEL, prompt="Hello", max_tokens=5, logprobs=2).choices
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text
    assert told.text_offset == [0, *(sum(map(len, told.tokens[:end])) for end in range(1, 5))]
    assert [max(top.values()) for top in told.top_logprobs] == told.token_logprobs
    assert {len(top) for top in told.top_logprobs} == {2}


def test_a_completion_is_cut_at_the_callers_stop_string_whole_and_streamed(serve):
    client = serve(Typing("one two three"))
    whole = client.completions.create(model=MODEL, prompt="count", stop=" tw").choices[0]
    assert (whole.text, whole.finish_reason) == ("one", "stop")
    chunks = list(client.completions.create(model=MODEL, prompt="count", stop=["three", " tw"], stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "one"
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "."}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, 10_000]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": "Hello " * 2000}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"logit_bias": {"10000": 1}}, "logit_bias"),
        ({"n": 2, "stream": True}, "n"),
        ({"prompt": ["a", "b"], "stream": True}, "prompt"),
    ],
)
def test_what_a_completion_cannot_do_is_refused_by_name(tiny, fields, param):
    error = refused(lambda: tiny.completions.create(**{"model": MODEL, "prompt": "Hello"} | fields))
    assert error.param == param


def test_fields_that_ask_for_nothing_may_stand(tiny):
    tiny.completions.create(
        model=MODEL, prompt="Hello", max_tokens=1, echo=False, best_of=1, frequency_penalty=0, suffix=""
    )


def test_half_of_a_surrogate_pair_is_the_clients_mistake(tiny):
    body = b'{"model": "tiny", "prompt": "\\ud800"}'
    answer = httpx.post(f"{tiny.base_url}completions", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


# Responses


def test_a_response_says_what_the_policy_answers(serve):
    response = serve(Typing("Answer: 5 apples")).responses.create(
        model=MODEL, input=QUESTION, metadata={"run": "a"}, store=False, include=[], max_output_tokens=9
    )
    assert (response.output_text, response.status, response.metadata) == ("5 apples", "completed", {"run": "a"})
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (9, 2, 11)
    assert response.max_output_tokens == 9


def test_a_call_and_its_output_lead_to_the_answer(serve):
    policy = Typing("It takes a sum: calculator( 2+3 )->", "Answer: 5")
    client = serve(policy)
    tools = [flat(CALCULATOR)]
    items: list = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
    first = client.responses.create(model=MODEL, input=items, tools=tools)
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "calculator", {"expression": "2+3"})
    items += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "5"}]
    second = client.responses.create(model=MODEL, input=items, tools=tools)
    assert second.output_text == "5"
    opening, written, seen = policy.requests[1].segments
    assert (opening, written.text, seen) == (f"{QUESTION}\n", "It takes a sum: calculator( 2+3 )->", "5\n")


def test_earlier_exchanges_and_what_was_said_with_a_call_come_back_as_one_reply(serve):
    format = ChatFormat(ChatMl())
    calls = (ToolCall("calculator", {"expression": "2+3"}), ToolCall("lookup", {"title": "x"}))
    policy = Typing(format.write_calls(calls, CATALOG.specs(), "Both."), format.write_answer("5 and x 1"))
    client = serve(policy, format)
    tools = [flat(CALCULATOR), flat(LOOKUP)]
    items: list = [asked("Hi"), {"role": "assistant", "content": "Hello"}, asked()]
    first = client.responses.create(model=MODEL, input=items, tools=tools)
    assert [item.type for item in first.output] == ["message", "function_call", "function_call"]
    outputs = [
        {"type": "function_call_output", "call_id": item.call_id, "output": text}
        for item, text in zip(first.output[1:], ("5", "x 1"), strict=True)
    ]
    second = client.responses.create(model=MODEL, input=[*items, *first.output, *outputs], tools=tools)
    assert second.output_text == "5 and x 1"
    assert second.output[0].apprentice["unread_messages"] == 2
    assert policy.requests[1].segments[1].text == format.write_calls(calls, CATALOG.specs(), "Both.")


def test_an_answer_streams_in_the_documented_events(serve):
    client = serve(Typing("Answer: 1234 567 89"))
    events = list(client.responses.create(model=MODEL, input=QUESTION, stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(kinds[4:-4]) == {"output_text.delta"} and len(deltas) > 3
    assert "".join(deltas) == events[-4].text == events[-1].response.output_text == "1234 567 89"
    with client.responses.stream(model=MODEL, input=QUESTION) as stream:
        assert stream.get_final_response().output_text == "1234 567 89"


def test_a_call_streams_as_an_item_of_its_own(serve):
    client = serve(Typing("calculator(2+3)->"))
    events = list(client.responses.create(model=MODEL, input=QUESTION, tools=[flat(CALCULATOR)], stream=True))
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    (call,) = events[-1].response.output
    assert call == events[-2].item
    assert json.loads(events[3].delta) == json.loads(call.arguments) == {"expression": "2+3"}
    assert call.apprentice["reply"] == "calculator(2+3)->"


def test_a_response_that_breaks_off_ends_as_failed_and_one_that_is_cut_as_incomplete(serve, tiny):
    class Breaking(Typing):
        async def complete(self, request: Request) -> Completion:
            request.on_text("Answer: 1 2")
            raise PolicyUnavailableError("the weights are gone")

    last = list(serve(Breaking()).responses.create(model=MODEL, input=QUESTION, stream=True))[-1]
    assert (last.type, last.response.error.message) == ("response.failed", "the weights are gone")
    cut = tiny.responses.create(model=MODEL, input=QUESTION, max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_log_probabilities_of_a_response_come_with_its_text(tiny):
    response = tiny.responses.create(
        model=MODEL, input=QUESTION, max_output_tokens=8, include=["message.output_text.logprobs"], top_logprobs=2
    )
    told = response.output[0].content[0].logprobs
    assert len(told) == 8 and all(len(one.top_logprobs) == 2 for one in told)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"instructions": "Be brief."}, "instructions"),
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a", "cache": {}}]}]},
            "input[0].content",
        ),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"max_tool_calls": 2}, "max_tool_calls"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [flat(CALCULATOR) | {"strict": True}]}, "tools[0].strict"),
        ({"tools": [flat(CALCULATOR) | {"name": "search"}]}, "tools[0].name"),
        ({"tools": [flat(CALCULATOR)], "text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0]"),
        ({"input": [asked(), {"type": "function_call_output", "call_id": "c", "output": "5"}]}, "input[1]"),
        ({"input": [{"role": "developer", "content": "Be brief."}, asked()]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"input": []}, "input"),
        ({"input": "Hello " * 2000}, "input"),
    ],
)
def test_what_a_response_cannot_do_is_refused_by_name(tiny, fields, param):
    error = refused(lambda: tiny.responses.create(**{"model": MODEL, "input": QUESTION} | fields))
    assert error.param == param


# Structured replies


SMALL = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "legs": {"type": "array", "items": {"type": "boolean"}}},
    "required": ["kind", "legs"],
    "additionalProperties": False,
}
SMALL["properties"]["legs"] |= {"minItems": 1, "maxItems": 3}


def wanted(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "wanted", "schema": schema, "strict": True}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_follows_the_schema_whatever_the_weights_say(tiny, stream):
    for seed in range(4):
        reply = tiny.chat.completions.create(
            model=MODEL,
            messages=[asked()],
            response_format=wanted(SMALL),
            temperature=2,
            seed=seed,
            max_tokens=200,
            stream=stream,
        )
        if stream:
            chunks = list(reply)
            content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            finish = chunks[-1].choices[0].finish_reason
        else:
            content, finish = reply.choices[0].message.content, reply.choices[0].finish_reason
        said = json.loads(content)
        assert finish == "stop"
        assert said["kind"] in ("cat", "dog") and set(said) == {"kind", "legs"}
        assert 1 <= len(said["legs"]) <= 3 and all(type(leg) is bool for leg in said["legs"])


def test_several_structured_replies_are_each_held_to_the_schema_and_free_ones_beside_them_are_not(tiny):
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        held = threads.submit(
            tiny.chat.completions.create,
            model=MODEL,
            messages=[asked()],
            response_format=wanted(SMALL),
            temperature=2,
            seed=1,
            n=3,
            max_tokens=200,
        )
        free = threads.submit(tiny.completions.create, model=MODEL, prompt="Hello", max_tokens=30)
        choices = held.result().choices
        assert (
            free.result().choices[0].text
            == tiny.completions.create(model=MODEL, prompt="Hello", max_tokens=30).choices[0].text
        )
    replies = [choice.message.content for choice in choices]
    assert len(set(replies)) > 1 and all(json.loads(reply)["kind"] in ("cat", "dog") for reply in replies)


def test_a_structured_answer_may_hold_the_formats_own_words(serve, policy, tiny):
    schema = {"const": {"said": "Answer: calculator(1)->"}}
    reply = tiny.chat.completions.create(model=MODEL, messages=[asked()], response_format=wanted(schema))
    assert json.loads(reply.choices[0].message.content) == schema["const"]


def test_a_response_is_structured_as_a_chat_is(tiny):
    format = {"type": "json_schema", "name": "small", "schema": SMALL, "strict": True}
    response = tiny.responses.create(model=MODEL, input=QUESTION, text={"format": format}, max_output_tokens=200)
    assert json.loads(response.output_text)["kind"] in ("cat", "dog")
    assert response.text.format.type == "json_schema"


class Pet(BaseModel):
    kind: Literal["cat", "dog"]
    legs: list[bool] | None


def test_the_official_client_parses_replies_into_the_callers_own_model(tiny):
    chat = tiny.chat.completions.parse(model=MODEL, messages=[asked()], response_format=Pet, max_tokens=200)
    assert isinstance(chat.choices[0].message.parsed, Pet)
    response = tiny.responses.parse(model=MODEL, input=QUESTION, text_format=Pet, max_output_tokens=200)
    assert isinstance(response.output_parsed, Pet)


def test_json_objects_without_a_schema_are_objects_as_far_as_they_go(tiny):
    reply = tiny.chat.completions.create(
        model=MODEL, messages=[asked()], response_format={"type": "json_object"}, max_tokens=4, temperature=1, seed=0
    )
    assert reply.choices[0].message.content.startswith("{")


def test_a_schema_that_cannot_be_enforced_is_refused_by_what_it_asks_and_so_is_a_policy_without_tokens(tiny, serve):
    error = refused(
        lambda: tiny.chat.completions.create(
            model=MODEL, messages=[asked()], response_format=wanted({"type": "array", "uniqueItems": True})
        )
    )
    assert error.param == "response_format" and "uniqueItems" in str(error)
    client = serve(Typing("Answer: {}"))
    error = refused(
        lambda: client.chat.completions.create(model=MODEL, messages=[asked()], response_format={"type": "json_object"})
    )
    assert error.code == "unsupported_parameter"


# Tools that the server runs


def test_the_server_plays_the_whole_episode_for_who_asks(serve):
    policy = Typing("calculator(2+3)->", "Answer: 5")
    client = serve(policy, execution=executing())
    (choice,) = client.chat.completions.create(
        model=MODEL, messages=[asked()], extra_body={"apprentice": {"execute": True}}
    ).choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("5", None, "stop")
    episode = choice.message.apprentice["episode"]
    assert (episode["stop"], [turn["reply"] for turn in episode["turns"]]) == (
        "answer",
        ["calculator(2+3)->", "Answer: 5"],
    )
    (call,), (seen,) = episode["turns"][0]["calls"], episode["turns"][0]["observations"]
    assert call == {"tool": "calculator", "arguments": {"expression": "2+3"}}
    assert (seen["content"], seen["status"], seen["attempts"]) == ("5", "ok", 1)
    assert policy.requests[1].segments[2] == "5\n"


def test_an_episode_ends_at_its_limits_and_tells_what_went_wrong(serve):
    client = serve(Typing(*["calculator(1/0)->"] * 9), execution=executing())
    asking = {"model": MODEL, "messages": [asked()]}
    for body, turns in (({}, 3), ({"max_turns": 2}, 2)):
        reply = client.chat.completions.create(**asking, extra_body={"apprentice": {"execute": True, **body}})
        episode = reply.choices[0].message.apprentice["episode"]
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (None, "length")
        assert (episode["stop"], len(episode["turns"])) == ("turn_limit", turns)
        assert episode["turns"][0]["observations"][0]["status"] == "tool_error"
    error = refused(
        lambda: client.chat.completions.create(**asking, extra_body={"apprentice": {"execute": True, "max_turns": 4}})
    )
    assert error.param == "apprentice.max_turns"


def test_several_episodes_and_the_tools_that_may_be_called_are_the_callers_choice(serve):
    policy = Typing("calculator(2+3)->", "Answer: 5")
    client = serve(policy, execution=executing())
    reply = client.chat.completions.create(
        model=MODEL, messages=[asked()], tools=[LOOKUP], n=2, extra_body={"apprentice": {"execute": True}}
    )
    for choice in reply.choices:
        (seen,) = choice.message.apprentice["episode"]["turns"][0]["observations"]
        assert seen["status"] == "bad_call"
    assert {request.task.tools for request in policy.requests} == {("lookup",)}
    client.chat.completions.create(
        model=MODEL,
        messages=[asked()],
        tool_choice={"type": "function", "function": {"name": "calculator"}},
        extra_body={"apprentice": {"execute": True}},
    )
    assert [request.prefix for request in policy.requests[-2:]] == ["calculator(", ""]


def test_an_episode_that_comes_back_with_the_conversation_may_stand(serve):
    policy = Typing("calculator(2+3)->", "Answer: 5")
    client = serve(policy, execution=executing())
    asking = {"model": MODEL, "extra_body": {"apprentice": {"execute": True}}}
    first = client.chat.completions.create(messages=[asked()], **asking).choices[0].message
    again = client.chat.completions.create(messages=[asked(), first, asked("And 3 plus 4?")], **asking)
    assert again.choices[0].message.apprentice["unread_messages"] == 2
    error = refused(
        lambda: client.chat.completions.create(
            messages=[asked(), called(), {"role": "tool", "tool_call_id": "c", "content": "5"}], **asking
        )
    )
    assert error.param == "messages"


def test_nobody_has_tools_run_where_the_server_was_not_started_for_it(serve):
    client = serve(Typing("Answer: 5"))
    asking = {"model": MODEL, "messages": [asked()], "extra_body": {"apprentice": {"execute": True}}}
    error = refused(lambda: client.chat.completions.create(**asking), 403)
    assert (error.param, error.code) == ("apprentice.execute", "execution_disabled")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": True}, "stream"),
        ({"stop": ["x"]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_an_episode_cannot_do_is_refused_by_name(serve, fields, param):
    client = serve(Typing("Answer: 5"), execution=executing())
    asking = {"model": MODEL, "messages": [asked()], "extra_body": {"apprentice": {"execute": True}}}
    assert refused(lambda: list(client.chat.completions.create(**asking, **fields))).param == param


def test_a_page_of_another_site_has_nothing_run(serve):
    client = serve(Typing("Answer: 5"), execution=executing())
    body = json.dumps({"model": MODEL, "messages": [asked()], "apprentice": {"execute": True}})
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost:3000", 200)):
        headers = {"origin": origin, "content-type": "text/plain"}
        answer = httpx.post(f"{client.base_url}chat/completions", content=body, headers=headers)
        assert answer.status_code == status
    headers = {"origin": "https://evil.example", "accept": "application/json, text/event-stream"}
    assert httpx.post(f"{client.base_url}tools", json={}, headers=headers).status_code == 403


async def test_tools_are_listed_and_an_mcp_client_calls_them_within_their_limits(serve):
    client = serve(Typing("Answer: 5"), execution=executing(calls_per_episode=2))
    url = f"{client.base_url}tools"
    listed = httpx.get(url).json()["data"]
    assert listed == [{"object": "tool", **offered["function"]} for offered in (CALCULATOR, LOOKUP)]
    async with Client(url, mode="legacy") as connected:
        offered = (await connected.list_tools()).tools
        assert {one.name: one.input_schema for one in offered} == {one["name"]: one["parameters"] for one in listed}
        right = await connected.call_tool("calculator", {"expression": "2+3"})
        assert (right.content[0].text, right.is_error) == ("5", False)
        wrong = await connected.call_tool("calculator", {"expression": 1})
        assert wrong.is_error and wrong.meta["apprentice/status"] == "bad_call"
        spent = await connected.call_tool("calculator", {"expression": "1"})
        assert spent.is_error and "2 calls" in spent.content[0].text
    async with Client(url) as another:
        assert (await another.call_tool("lookup", {"title": "x"})).content[0].text == "x 1"


def test_an_mcp_client_is_turned_away_where_the_server_runs_no_tools(serve):
    client = serve(Typing("Answer: 5"))
    answer = httpx.post(f"{client.base_url}tools", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "execution_disabled")
    assert [one["name"] for one in httpx.get(f"{client.base_url}tools").json()["data"]] == ["calculator", "lookup"]


def test_tools_of_several_policies_are_served_together_and_the_first_of_a_name_counts():
    @tool(name="lookup")
    def another(title: str) -> str:
        """Look it up elsewhere."""
        return "elsewhere"

    first = Executor(Catalog([lookup]), timeout=3)
    second = Executor(Catalog([another, calculator]), timeout=5)
    both = together([first, second])
    assert both is not None and both.timeout == 5
    assert both.catalog.names == ("lookup", "calculator")
    assert both.run(ToolCall("lookup", {"title": "x"})).content == "x 1"
    assert together([first]) is first and together([]) is None


def test_tools_of_several_policies_take_arguments_as_each_policy_s_own_executor_does():
    def named(name: str, factor: int):
        @tool(name=name)
        def times(number: int) -> str:
            """Multiply it."""
            return str(number * factor)

        return times

    both = together([Executor(Catalog([named("twice", 2)])), Executor(Catalog([named("thrice", 3)]), coerce=True)])
    assert both is not None
    assert both.run(ToolCall("thrice", {"number": "4"})).content == "12"
    assert both.run(ToolCall("twice", {"number": "4"})).status == "bad_call"
    same = named("same", 1)
    first_strict = together([Executor(Catalog([same])), Executor(Catalog([same]), coerce=True)])
    assert first_strict is not None and not first_strict.coerces("same"), "the first of a name counts"


# Chat


def test_only_the_first_of_several_calls_is_told_to_who_wants_one_at_a_time(serve):
    format = ChatFormat(ChatMl())
    calls = (ToolCall("calculator", {"expression": "2+3"}), ToolCall("lookup", {"title": "x"}))
    client = serve(Typing(format.write_calls(calls, CATALOG.specs())), format)
    for parallel, told, untold in ((True, 2, None), (False, 1, 1)):
        message = (
            client.chat.completions.create(
                model=MODEL, messages=[asked()], tools=[CALCULATOR, LOOKUP], parallel_tool_calls=parallel
            )
            .choices[0]
            .message
        )
        assert (len(message.tool_calls), message.apprentice.get("untold_calls")) == (told, untold)


# What the documentation says


@pytest.mark.parametrize(
    ("params", "request_type", "required"),
    [
        (chat_params.CompletionCreateParamsNonStreaming, ChatRequest, {"messages": [asked()]}),
        (completion_params.CompletionCreateParamsNonStreaming, CompletionRequest, {"prompt": "Hello"}),
        (response_params.ResponseCreateParamsNonStreaming, ResponseRequest, {"input": "Hello"}),
    ],
    ids=["chat", "completions", "responses"],
)
def test_every_field_of_openais_is_honoured_or_refused_by_name_and_the_documentation_has_it(
    params, request_type, required
):
    documented = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    names = {name for kind in params.__mro__ for name in getattr(kind, "__annotations__", {})}
    assert len(names) > 15
    for name in sorted(names):
        assert re.search(rf"`{name}\b", documented), name
        if name not in request_type.model_fields:
            body = {"model": MODEL, **required, name: "anything"}
            with pytest.raises(ChatError) as caught:
                read(json.dumps(body).encode(), None, request_type)
            assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
