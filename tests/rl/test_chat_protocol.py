"""OpenAI's shapes, without Ray and without a model."""

import asyncio
import dataclasses
import json
from dataclasses import replace

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from executors.catalog import Catalog
from executors.tool import tool
from executors.tools.calculator import calculator
from executors.types import ToolCall, ToolSpec
from rl.models.tiny import build_tokenizer
from rl.serving.chat import ChatServer
from rl.serving.http import ChatEngine, build_api
from rl.serving.protocol import ask
from rl.serving.weights import OneServer
from rl.serving.wire import ChatError, read
from rollouts.formats.chat import ChatFormat
from rollouts.formats.inline import InlineFormat
from rollouts.policy import PolicyUnavailableError, PromptTooLongError, Request, ScriptedPolicy
from rollouts.types import Completion, Sampling
from tests.rollouts.chat_templates import ChatMl

MODEL = "tiny"
QUESTION = {"role": "user", "content": "What is 2 plus 3?"}


@tool
def lookup(title: str, page: int = 1) -> str:
    """Look something up."""
    return f"{title} {page}"


CATALOG = Catalog([calculator, lookup])
CALCULATOR, LOOKUP = (spec.as_openai() for spec in CATALOG.specs())


def changed(required: list[str] | None = None, **fields) -> dict:
    """The calculator, its parameter described otherwise."""
    schema = {"type": "string", **fields}
    parameters = {"type": "object", "properties": {"expression": schema}, "required": required or ["expression"]}
    return {"type": "function", "function": {"name": "calculator", "description": "Adds.", "parameters": parameters}}


class TypingPolicy(ScriptedPolicy):
    """Writes its script's replies a few characters at a time."""

    def __init__(self, *replies: str, finish: str | None = None) -> None:
        super().__init__(MODEL, lambda task: replies)
        self.finish = finish
        self.requests: list[Request] = []
        self.released: list[str] = []

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        completion = await super().complete(request)
        for end in range(1, len(completion.text), 2):
            if request.on_text is not None:
                request.on_text(completion.text[:end])
            await asyncio.sleep(0)
        return Completion(
            text=completion.text, finish=self.finish or completion.finish, token_ids=(5, 6), prompt_tokens=9
        )

    def release(self, session: str) -> None:
        self.released.append(session)


class BrokenPolicy(ScriptedPolicy):
    def __init__(self, error: Exception) -> None:
        super().__init__(MODEL, lambda task: ())
        self.error = error

    async def complete(self, request: Request) -> Completion:
        raise self.error


def body(*messages, **fields) -> bytes:
    return json.dumps({"model": MODEL, "messages": list(messages) or [QUESTION], **fields}).encode()


def server(*replies: str, finish: str | None = None) -> tuple[ChatServer, TypingPolicy]:
    policy = TypingPolicy(*replies, finish=finish)
    return ChatServer(policy, InlineFormat(), CATALOG.specs()), policy


async def completed(chat: ChatServer, *messages, **fields) -> ChatCompletion:
    return ChatCompletion.model_validate(await chat.complete(read(body(*messages, **fields), MODEL)))


async def streamed(chat: ChatServer, *messages, **fields) -> list[ChatCompletionChunk]:
    request = read(body(*messages, stream=True, **fields), MODEL)
    return [ChatCompletionChunk.model_validate(chunk) async for chunk in chat.stream(request)]


def refused(*messages, **fields) -> ChatError:
    with pytest.raises(ChatError) as caught:
        ask(read(body(*messages, **fields), MODEL), InlineFormat(), CATALOG.specs(), session="s")
    return caught.value


def called(id: str = "call_1", arguments: str = '{"expression": "2+3"}', **fields) -> dict:
    wire = {"id": id, "type": "function", "function": {"name": "calculator", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [wire], **fields}


def result(content="5", id: str = "call_1") -> dict:
    return {"role": "tool", "tool_call_id": id, "content": content}


async def test_call_becomes_tool_calls():
    chat, policy = server("calculator(2+3)->")
    response = await completed(chat, tools=[CALCULATOR])
    choice = response.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls[0].function.name == "calculator"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"expression": "2+3"}
    assert response.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
    }
    assert policy.released == [policy.requests[0].session]


async def test_answer_is_content_without_the_formats_marker():
    chat, _ = server("Answer: 5 apples")
    choice = (await completed(chat, tools=[CALCULATOR])).choices[0]
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("5 apples", None, "stop")


async def test_malformed_call_is_content_and_is_said_to_be_malformed():
    chat, _ = server("calculator(2+3")
    message = (await completed(chat, tools=[CALCULATOR])).choices[0].message
    assert message.content == "calculator(2+3"
    assert message.apprentice["malformed_call"] == "the call is not closed: it has to end with ')->'"


async def test_call_of_a_tool_that_was_not_offered_is_content_and_is_said_to_be_one():
    chat, _ = server("calculator(2+3)->")
    choice = (await completed(chat, tools=[LOOKUP])).choices[0]
    assert choice.message.content == "calculator(2+3)->"
    assert choice.message.tool_calls is None
    assert choice.message.apprentice["unoffered_call"] == "calculator"


async def test_reply_cut_at_its_limit_finishes_with_length():
    chat, policy = server("Answer: 12", finish="length")
    choice = (await completed(chat, max_completion_tokens=3)).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("12", "length")
    assert policy.requests[0].sampling.max_tokens == 3


async def test_result_of_a_call_is_read_as_the_observation_after_the_call():
    chat, policy = server("calculator(2+3)->", "Answer: 5")
    first = (await completed(chat, tools=[CALCULATOR])).choices[0].message
    reply = first.model_dump(exclude_unset=True)
    second = await completed(chat, QUESTION, reply, result("5", first.tool_calls[0].id), tools=[CALCULATOR])
    assert second.choices[0].message.content == "5"
    opening, call, observed = policy.requests[1].segments
    assert (opening, call.text, observed) == ("What is 2 plus 3?\n", "calculator(2+3)->", "5\n")


async def test_own_reply_that_comes_back_is_read_as_it_was_written():
    chat, policy = server("It takes a sum: calculator( 2+3 )->", "Answer: 5")
    first = (await completed(chat, tools=[CALCULATOR])).choices[0].message
    reply = first.model_dump(exclude_unset=True)
    await completed(chat, QUESTION, reply, result("5", first.tool_calls[0].id))
    assert policy.requests[1].segments[1].text == "It takes a sum: calculator( 2+3 )->"


def test_call_that_the_client_changed_is_read_as_changed():
    changed = called(arguments='{"expression": "2*3"}', apprentice={"reply": "calculator(2+3)->"})
    asked = ask(read(body(QUESTION, changed, result("6")), MODEL), InlineFormat(), CATALOG.specs(), session="s")
    assert asked.request.segments[1].text == "calculator(2*3)->"


async def test_only_the_last_question_is_read_and_the_reply_says_so():
    chat, policy = server("Answer: 5")
    earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    message = (await completed(chat, *earlier, QUESTION)).choices[0].message
    assert policy.requests[0].segments == ("What is 2 plus 3?\n",)
    assert message.apprentice["unread_messages"] == 2


def test_content_parts_are_joined():
    parts = {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2?"}]}
    asked = ask(read(body(parts), MODEL), InlineFormat(), CATALOG.specs(), session="s")
    assert asked.request.task.prompt == "What is 2?"


def test_a_tool_may_be_described_in_other_words_and_is_read_in_its_trainings():
    other = read(body(tools=[changed(title="Expression", description="whatever")]), MODEL)
    own = read(body(tools=[CALCULATOR]), MODEL)
    first, second = (ask(one, InlineFormat(), CATALOG.specs(), session="s") for one in (other, own))
    assert first.request == replace(second.request, seed=first.request.seed)


def test_an_argument_that_may_be_anything_is_not_taken_for_one_of_a_type():
    anything = ToolSpec("calculator", "Adds.", {"type": "object", "properties": {"expression": True}})
    with pytest.raises(ChatError, match="'type' of 'expression' is null there"):
        ask(read(body(tools=[changed()]), MODEL), InlineFormat(), [anything], session="s")
    asked = ask(read(body(tools=[anything.as_openai()]), MODEL), InlineFormat(), [anything], session="s")
    assert asked.offered == {"calculator"}


@pytest.mark.parametrize(
    ("choice", "tools", "prefix", "offered"),
    [
        (None, [], "Answer: ", set()),
        ("none", [CALCULATOR], "Answer: ", set()),
        ("auto", [CALCULATOR], "", {"calculator"}),
        (None, [CALCULATOR, LOOKUP], "", {"calculator", "lookup"}),
        ("required", [CALCULATOR], "calculator(", {"calculator"}),
        ({"type": "function", "function": {"name": "lookup"}}, [CALCULATOR, LOOKUP], "lookup(", {"lookup"}),
    ],
)
def test_tool_choice_says_what_the_reply_begins_with(choice, tools, prefix, offered):
    chat = read(body(tools=tools, tool_choice=choice), MODEL)
    asked = ask(chat, InlineFormat(), CATALOG.specs(), session="s")
    assert (asked.request.prefix, asked.offered) == (prefix, offered)


def test_sampling_is_the_requests_where_it_says_and_the_servers_elsewhere():
    defaults = Sampling(temperature=0.0, top_p=0.9, top_k=7, max_tokens=50)
    chat = read(body(temperature=1, max_tokens=4, seed=-3), MODEL)
    first = ask(chat, InlineFormat(), CATALOG.specs(), session="a", defaults=defaults).request
    again = ask(chat, InlineFormat(), CATALOG.specs(), session="b", defaults=defaults).request
    assert first.sampling == Sampling(temperature=1.0, top_p=0.9, top_k=7, max_tokens=4)
    assert first.seed == again.seed >= 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"top_k": 5}, "top_k"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"response_format": {"type": "json_object"}, "tools": [CALCULATOR]}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"store": True}, "store"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": []}, "functions"),
        ({"apprentice": {"run": True}}, "apprentice.run"),
        ({"apprentice": {"max_turns": 2}}, "apprentice.max_turns"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"the": 5}}, "logit_bias"),
        ({"logit_bias": {"7": 500}}, "logit_bias.7"),
        ({"n": 9}, "n"),
        ({"n": 2, "stream": True}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [CALCULATOR, LOOKUP], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "search"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "calculator"}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [changed(type="integer")]}, "tools[0].function.parameters"),
        ({"tools": [changed(enum=["1+1"])]}, "tools[0].function.parameters"),
        ({"tools": [changed(["expression", "more"])]}, "tools[0].function.parameters"),
    ],
)
def test_field_that_is_not_supported_is_refused_by_name(fields, param):
    error = refused(**fields)
    assert (error.status, error.param) == (400, param)
    assert error.body()["error"]["type"] == "invalid_request_error"


def test_fields_that_are_null_or_ask_for_nothing_are_not_given():
    nulls = {"frequency_penalty": 0.0, "store": False, "service_tier": "auto", "modalities": ["text"], "user": "ann"}
    nulls |= {"presence_penalty": None, "tools": None, "tool_choice": None, "seed": None, "verbosity": "medium"}
    assert read(body(called(refusal=None, audio=None, annotations=[]), **nulls), MODEL).tools == []


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "system", "content": "Be brief."}, QUESTION], "messages[0].role"),
        ([called(), result()], "messages"),
        ([QUESTION, called()], "messages[1].role"),
        ([QUESTION, called(), result(id="call_2")], "messages[2]"),
        ([QUESTION, result()], "messages[1]"),
        ([QUESTION, called(arguments="2+3"), result()], "messages[1].tool_calls[0].function.arguments"),
        ([{"role": "user", "content": "Hello", "name": "Ann"}], "messages[0].name"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text", "text": "Hello", "cache": {}}]}], "messages[0].content"),
        ([{"role": "critic", "content": "Hello"}], "messages[0]"),
    ],
)
def test_message_that_cannot_be_read_is_refused_by_place(messages, param):
    assert refused(*messages).param == param


def test_unknown_model_is_not_found():
    with pytest.raises(ChatError) as caught:
        read(body(), "another")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_body_that_is_not_json_is_refused():
    with pytest.raises(ChatError, match="not JSON"):
        read(b"{", MODEL)


async def test_answer_streams_as_it_grows():
    chat, policy = server("Answer: 1234 567 89")
    chunks = await streamed(chat, tools=[CALCULATOR], stream_options={"include_usage": True})
    *deltas, last, usage = chunks
    contents = [chunk.choices[0].delta.content for chunk in deltas]
    assert "".join(contents) == "1234 567 89"
    assert sum(map(bool, contents)) > 3
    assert deltas[0].choices[0].delta.role == "assistant"
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.apprentice["reply"] == "Answer: 1234 567 89"
    assert (usage.choices, usage.usage.total_tokens) == ([], 11)
    assert policy.released == [policy.requests[0].session]


async def test_several_calls_go_out_and_their_results_come_back_in_any_order():
    format = ChatFormat(ChatMl())
    calls = (ToolCall("calculator", {"expression": "2+3"}), ToolCall("lookup", {"title": "x"}))
    policy = TypingPolicy(format.write_calls(calls, CATALOG.specs(), "Both."), format.write_answer("5 and x 1"))
    chat = ChatServer(policy, format, CATALOG.specs())
    tools = [CALCULATOR, LOOKUP]
    first = (await completed(chat, tools=tools)).choices[0]
    assert (first.finish_reason, first.message.content) == ("tool_calls", "Both.")
    one, other = first.message.tool_calls
    assert (one.function.name, other.function.name) == ("calculator", "lookup")
    chunks = await streamed(chat, tools=tools)
    sent = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [(call.index, call.function.name) for call in sent] == [(0, "calculator"), (1, "lookup")]
    reply = first.message.model_dump(exclude_unset=True)
    for changed in (reply, reply | {"apprentice": None}):
        results = [result("x 1", other.id), result("5", one.id)]
        await completed(chat, QUESTION, changed, *results, tools=tools)
        _, written, observed = policy.requests[-1].segments
        assert format.parse(written.text, CATALOG.specs()) == calls
        assert observed.index("5") < observed.index("x 1")
    with pytest.raises(ChatError, match="has to be followed by its result"):
        await completed(chat, QUESTION, reply, result("5", one.id), tools=tools)
    with pytest.raises(ChatError, match="one call at a time"):
        await completed(server()[0], QUESTION, reply, *results, tools=tools)


async def test_call_streams_whole_and_no_part_of_it_as_content():
    chat, _ = server("calculator(2+3)->")
    *deltas, last = await streamed(chat, tools=[CALCULATOR])
    assert not any(chunk.choices[0].delta.content for chunk in deltas)
    calls = [chunk.choices[0].delta.tool_calls for chunk in deltas if chunk.choices[0].delta.tool_calls]
    assert len(calls) == 1
    assert calls[0][0].function.arguments == '{"expression": "2+3"}'
    assert last.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "reply",
    [
        "Answer: 5 calculator(2+3)->",
        "Answer: f(3)->",
        "Answer: the sum calculator(2",
        "calculator(2+3) Answer: 5",
        "5",
        "",
        "Answer: ",
        "Answer:  a word ",
    ],
)
async def test_stream_tells_what_the_whole_response_tells(reply):
    message = (await completed(server(reply)[0], tools=[CALCULATOR])).choices[0].message
    chunks = await streamed(server(reply)[0], tools=[CALCULATOR])
    content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert bool(calls) == bool(message.tool_calls)
    assert "calculator(" not in content or content == reply
    assert content == (message.content or "") or chunks[-1].choices[0].delta.apprentice["reply"] == reply


async def test_prompt_that_is_too_long_is_the_clients_mistake_and_a_broken_policy_is_not():
    for error, status in ((PromptTooLongError("too long"), 400), (PolicyUnavailableError("gone"), 503)):
        chat = ChatServer(BrokenPolicy(error), InlineFormat(), CATALOG.specs())
        with pytest.raises(ChatError) as caught:
            await completed(chat)
        assert caught.value.status == status
        with pytest.raises(ChatError) as caught:
            await streamed(chat)
        assert caught.value.status == status


async def test_stream_that_nobody_reads_any_more_releases_its_session():
    chat, policy = server("Answer: 1 2 3 4 5 6 7 8 9")
    chunks = chat.stream(read(body(stream=True), MODEL))
    await anext(chunks)
    await chunks.aclose()
    assert policy.released == [policy.requests[0].session]


def client(policy: ScriptedPolicy) -> openai.AsyncOpenAI:
    """The official client, in front of the routes."""
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "test"}
    api = build_api(ChatEngine(OneServer(ChatServer(policy, InlineFormat(), CATALOG.specs()), model)))
    transport = httpx2.ASGITransport(api, raise_app_exceptions=False)
    http = httpx2.AsyncClient(transport=transport, base_url="http://test/v1")
    return openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http, max_retries=0)


async def test_official_client_lists_asks_and_streams():
    async with client(TypingPolicy("Answer: 5")) as official:
        assert [model.id async for model in official.models.list()] == [MODEL]
        assert (await official.models.retrieve(MODEL)).owned_by == "test"
        reply = await official.chat.completions.create(model=MODEL, messages=[QUESTION])
        assert reply.choices[0].message.content == "5"
        stream = await official.chat.completions.create(model=MODEL, messages=[QUESTION], stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "5"


async def test_official_client_sees_its_own_errors():
    async with client(TypingPolicy("Answer: 5")) as official:
        with pytest.raises(openai.BadRequestError) as caught:
            await official.chat.completions.create(model=MODEL, messages=[QUESTION], presence_penalty=1)
        assert caught.value.param == "presence_penalty"
        with pytest.raises(openai.NotFoundError, match="no model 'other'"):
            await official.chat.completions.create(model="other", messages=[QUESTION])
        with pytest.raises(openai.NotFoundError, match="there are /v1/chat/completions"):
            await official.embeddings.create(model=MODEL, input="2+3")


async def test_engine_that_fails_is_a_server_error_in_the_same_shape():
    async with client(BrokenPolicy(RuntimeError("out of memory"))) as official:
        with pytest.raises(openai.InternalServerError) as caught:
            await official.chat.completions.create(model=MODEL, messages=[QUESTION])
        assert (caught.value.code, caught.value.type) == ("engine_unavailable", "server_error")


async def test_stream_that_breaks_ends_with_the_error_and_is_not_done():
    class Breaking(TypingPolicy):
        async def complete(self, request: Request) -> Completion:
            request.on_text("Answer: 1 2")
            await asyncio.sleep(0)
            raise PolicyUnavailableError("the weights are gone")

    async with client(Breaking()) as official:
        stream = await official.chat.completions.create(model=MODEL, messages=[QUESTION], stream=True)
        seen: list[str] = []

        async def drain() -> None:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content or "")

        with pytest.raises(openai.APIError, match="the weights are gone"):
            await drain()
        assert "".join(seen) == "1 2"


async def test_a_reply_is_cut_at_the_callers_stop_string_whole_and_streamed():
    chat, policy = server("Answer: one two three")
    choice = (await completed(chat, stop=" tw")).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("one", "stop")
    assert policy.requests[0].stop == (*InlineFormat().stop, " tw")
    deltas = [chunk.choices[0].delta.content or "" for chunk in await streamed(chat, stop=["three", " tw"])]
    assert "".join(deltas) == "one"


async def test_several_replies_have_seeds_and_sessions_of_their_own():
    chat, policy = server("Answer: 5")
    response = await completed(chat, n=3, seed=1)
    assert [choice.index for choice in response.choices] == [0, 1, 2]
    assert len({request.seed for request in policy.requests}) == 3
    assert sorted(policy.released) == sorted({request.session for request in policy.requests})
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (9, 6)


async def test_log_probabilities_are_told_by_a_policy_that_has_them_and_refused_by_one_that_has_none():
    chat, _ = server("Answer: 5")
    with pytest.raises(ChatError) as caught:
        await completed(chat, logprobs=True)
    assert caught.value.param == "logprobs"

    class Telling(TypingPolicy):
        tokenizer = build_tokenizer(["5"])

        async def complete(self, request: Request) -> Completion:
            told = request.sampling.top_logprobs
            reply = await super().complete(request)
            return dataclasses.replace(reply, logprobs=(-0.5, -1.0), top_logprobs=(((5, -0.5),) * told,) * 2)

    chat = ChatServer(Telling("Answer: 5"), InlineFormat(), CATALOG.specs())
    for response in (
        (await completed(chat, logprobs=True, top_logprobs=1)).choices[0].logprobs,
        (await streamed(chat, logprobs=True, top_logprobs=1))[-1].choices[0].logprobs,
    ):
        assert response is not None and response.content is not None
        assert [token.logprob for token in response.content] == [-0.5, -1.0]
        assert len(response.content[0].top_logprobs) == 1


def test_a_bias_is_by_token_id():
    request = ask(read(body(logit_bias={"7": -100}), MODEL), InlineFormat(), CATALOG.specs(), session="s").request
    assert dict(request.sampling.logit_bias) == {7: -100.0}
