"""The Ray Serve app over real HTTP, asked by the official client."""

import dataclasses
import functools
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from mcp import Client

from executors.errors import ConfigError, DataError
from executors.executor import Executor
from rl import remote
from rl.serving.app import Served, Server, ServingError, serve_run
from tests.rl.overfitted import ANSWERS, CATALOG, COUNT, FORMAT, GREETING, SUM, write_checkpoint

pytestmark = pytest.mark.ray

MODEL = "by-heart"
TOOLS = [spec.as_openai() for spec in CATALOG.specs()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    logs = tmp_path_factory.mktemp("logs")
    executing = dataclasses.replace(served(checkpoint), executor=functools.partial(Executor, CATALOG))
    server = serve_run(executing, port=free_port(), logs=logs, blocking=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def served(checkpoint: Path) -> Served:
    return Served(name=MODEL, checkpoints=checkpoint.parent, checkpoint=checkpoint.name, format=FORMAT, catalog=CATALOG)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def asked(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def test_replica_that_cannot_load_its_model_says_why(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ServingError, match=rf"DataError: the model in {tmp_path} cannot be loaded"):
        serve_run(served(tmp_path), port=free_port(), blocking=False)


def test_models_are_listed_with_their_tools(client):
    default, step = client.models.list().data
    assert (default.id, default.tools, default.checkpoint) == (MODEL, TOOLS, "step-120")
    assert (step.id, step.version) == (f"{MODEL}:step-120", 120)


def test_call_and_its_result_lead_to_the_answer(client):
    reply = client.chat.completions.create(model=MODEL, messages=[asked(SUM)], tools=TOOLS)
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("calculator", {"expression": "2+3"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    final = client.chat.completions.create(model=MODEL, messages=[asked(SUM), choice.message, result], tools=TOOLS)
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == (ANSWERS[SUM], "stop")
    assert final.usage.prompt_tokens > reply.usage.prompt_tokens > 0
    assert final.system_fingerprint == "v120"


def test_answer_streams_in_several_deltas(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=[asked(COUNT)], tools=TOOLS, stream=True, stream_options={"include_usage": True}
    )
    *chunks, usage = list(stream)
    contents = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(contents) == ANSWERS[COUNT]
    assert len(contents) > 3
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert usage.usage.completion_tokens > 10


def test_call_streams_as_tool_calls_and_never_as_content(client):
    chunks = list(client.chat.completions.create(model=MODEL, messages=[asked(SUM)], tools=TOOLS, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [call.function.name for call in calls] == ["calculator"]
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_requests_at_once_are_answered_each_for_itself(client):
    import concurrent.futures

    questions = [SUM, COUNT, GREETING] * 8

    def ask(question: str) -> str:
        message = client.chat.completions.create(model=MODEL, messages=[asked(question)], tools=TOOLS)
        return message.choices[0].message.content or "a call"

    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, questions))
    assert answers == ["a call", ANSWERS[COUNT], ANSWERS[GREETING]] * 8


def test_tool_choice_is_honoured(client):
    direct = client.chat.completions.create(model=MODEL, messages=[asked(SUM)], tools=TOOLS, tool_choice="none")
    assert direct.choices[0].message.tool_calls is None
    called = client.chat.completions.create(model=MODEL, messages=[asked(COUNT)], tools=TOOLS, tool_choice="required")
    assert called.choices[0].message.apprentice["reply"].startswith("calculator(")


@pytest.mark.parametrize("stream", [False, True])
def test_field_that_is_not_supported_is_a_bad_request_that_names_it(client, stream):
    with pytest.raises(openai.BadRequestError, match="'presence_penalty' is not supported") as caught:
        client.chat.completions.create(model=MODEL, messages=[asked(SUM)], presence_penalty=1, stream=stream)
    assert (caught.value.param, caught.value.code) == ("presence_penalty", "unsupported_parameter")


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_that_is_too_long_is_a_bad_request(client, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[asked("1 " * 200)], stream=stream)
    assert caught.value.code == "context_length_exceeded"


def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="another", messages=[asked(SUM)])
    assert caught.value.code == "model_not_found"


def test_completions_responses_and_structured_replies_cross_between_the_processes(client):
    raw = client.completions.create(model=MODEL, prompt=f"{SUM}\n", stop=")->", max_tokens=20)
    assert raw.choices[0].text == "calculator(2+3"
    kinds = [event.type for event in client.responses.create(model=MODEL, input=COUNT, stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") > 3
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    held = client.chat.completions.create(model=MODEL, messages=[asked(COUNT)], response_format=form)
    assert json.loads(held.choices[0].message.content) in ("yes", "no")


async def test_tools_run_in_the_server_for_who_asks_and_for_an_mcp_client(client, server):
    message = (
        client.chat.completions.create(model=MODEL, messages=[asked(SUM)], extra_body={"apprentice": {"execute": True}})
        .choices[0]
        .message
    )
    assert message.content == ANSWERS[SUM]
    assert message.apprentice["episode"]["turns"][0]["observations"][0]["content"] == "5"
    async with Client(f"{server.url}/tools") as connected:
        assert (await connected.call_tool("calculator", {"expression": "6*7"})).content[0].text == "42"


def test_health_says_which_weights_answer(client, server):
    health = client.get(f"{server.url.removesuffix('/v1')}/health", cast_to=object)
    assert health == {"status": "ok", "version": 120}


def test_port_in_use_is_a_config_error_before_ray_starts(checkpoint, monkeypatch):
    monkeypatch.setattr(remote, "start", lambda **_: pytest.fail("Ray was started"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} .*in use.*--port {port + 1}"):
            serve_run(served(checkpoint), port=port, blocking=False)


def test_folder_without_a_model_is_a_data_error_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "start", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(DataError, match="has no checkpoint"):
        serve_run(served(tmp_path), port=free_port(), blocking=False)


def test_other_machines_get_in_with_keys_alone_and_never_to_a_cluster_without_tokens(checkpoint, monkeypatch):
    monkeypatch.setattr(remote, "start", lambda **_: pytest.fail("Ray was started"))
    for variable in ("APPRENTICE_API_KEYS", "APPRENTICE_API_KEYS_FILE", "RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match="put keys into APPRENTICE_API_KEYS"):
        serve_run(served(checkpoint), host="0.0.0.0", port=free_port())
    monkeypatch.setenv("APPRENTICE_API_KEYS", "team:" + "k" * 32)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"Ray on this machine would run whatever .*RAY_AUTH_MODE=token"):
        serve_run(served(checkpoint), host="0.0.0.0", port=free_port())
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match="the cluster that RAY_ADDRESS names would run whatever"):
        serve_run(served(checkpoint), host="0.0.0.0", port=free_port())


def test_names_of_several_policies_are_told_apart(checkpoint, monkeypatch):
    monkeypatch.setattr(remote, "start", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="cannot be the name of one of several"):
        serve_run(served(checkpoint), served(checkpoint), port=free_port())
