"""STE's and ToolAlpaca's runs at work: asked over HTTP by the official client, and talked to in the terminal."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import openai
import pytest

from executors.catalog import Catalog
from executors.executor import Executor
from executors.listening import listen
from executors.tools.operations import operation_tools
from executors.types import ToolCall
from rl.recipes import served
from rl.recipes.publication import Publication
from rl.recipes.served import Wanted, open_run
from rl.recipes.toolalpaca_tools import read_apis
from rl.run import Run, write_json
from rl.serving.chat import ChatServer
from rl.serving.execution import Execution
from rl.serving.http import ChatEngine, build_api
from rl.serving.weights import Weights
from rollouts.formats.react import ReactFormat
from rollouts.instances import CorpusFormat
from rollouts.types import Sampling, Task
from tests.rl.overfitted import write_by_heart

SUM, PRODUCT = "What is 3 plus 4?", "Multiply 5 and 6."
BARK, BARKED, SING = "Find the bark of dog 7.", "It barks.", "Find the song of bird 8."


@contextmanager
def asked(run: Run) -> Iterator[openai.OpenAI]:
    """A client of a run that is served as ``apprentice serve --execute`` does, in this process."""
    one = cloudpickle.loads(cloudpickle.dumps(served._served("run", run.path, Wanted(execute=True))))
    specs = one.catalog.specs()

    def build(policy):
        execution = Execution(executor=one.executor(), max_turns=one.max_turns)
        limits = Sampling(max_tokens=60)
        return ChatServer(policy, one.format, specs, sampling=limits, execution=execution, offering=one.offering)

    def load(path, version):
        return served.LocalPolicy("run", str(path), version)()

    weights = Weights(one.name, one.published(), one.opener or load, build)
    with (
        listen(build_api(ChatEngine(weights))) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client


def ask(client, question, *messages, model="run", **fields):
    prompt = {"role": "user", "content": question}
    return client.chat.completions.create(model=model, messages=[prompt, *messages], **fields).choices[0]


@pytest.fixture(scope="module")
def ste(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An STE run that knows two calls and what to say of them, and put that policy into use."""
    react = {"kind": "react", "describe_tools": False, "tool_markers": True}
    resolved = {"recipe": "ste", "name": "run", "format": react, "exploitation": {"responses": True}}
    resolved |= {"tools": [{"executors.tools.operations:operation_tools": {}}], "known": {"tools": ["add"]}}
    run = Run.start(tmp_path_factory.mktemp("ste") / "run", config_text="", resolved=resolved, resume=False)
    executor = Executor(Catalog(operation_tools()))
    names = executor.catalog.names
    tasks = [
        Task(id="sum", prompt=SUM, answer="It is 7.", tools=names, gold=ToolCall("add", {"numbers": [3, 4]})),
        Task(id="product", prompt=PRODUCT, answer="30", tools=names, gold=ToolCall("multiply", {"numbers": [5, 6]})),
    ]
    format = ReactFormat(describe_tools=False, tool_markers=True)
    folder = run.folder("checkpoints")
    write_by_heart(folder / "base", tasks, executor, format, max_length=160, steps=2)
    learned = write_by_heart(folder / "ft", tasks, executor, format, max_length=160, steps=80)
    Publication(folder).offer("ft", learned, {"add": 1.0})
    return run


def test_the_policy_that_an_ste_run_put_into_use_makes_ordinary_tool_calls(ste):
    with asked(ste) as client:
        assert [model.id for model in client.models.list()] == ["run", "run:ft", "run:base"]
        tools = [spec.as_openai() for spec in open_run(ste.path).catalog.specs(["add", "multiply"])]
        choice = ask(client, SUM, tools=tools)
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"numbers": [3, 4]})
        result = {"role": "tool", "tool_call_id": call.id, "content": "7"}
        assert ask(client, SUM, choice.message, result, tools=tools).message.content == "It is 7."
        every = {"apprentice": {"every_tool": True}}
        assert ask(client, PRODUCT, extra_body=every).message.tool_calls[0].function.name == "multiply"
        before = ask(client, SUM, model="run:base", tools=tools, max_tokens=8)
        assert not before.message.tool_calls, "the state before exploring knows no call yet"


def test_an_ste_runs_tools_run_here_where_they_may(ste):
    with asked(ste) as client:
        choice = ask(client, PRODUCT, extra_body={"apprentice": {"execute": True}})
    assert (choice.message.content, choice.finish_reason) == ("30", "stop")
    first, _ = choice.message.apprentice["episode"]["turns"]
    assert first["calls"] == [{"tool": "multiply", "arguments": {"numbers": [5, 6]}}]
    assert first["observations"][0]["content"] == "30"


def test_an_ste_run_is_talked_to(ste, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SUM}\n"))
    served.chat_with(ste.path)
    told = capsys.readouterr().out
    assert "add(numbers=[3, 4])" in told and "-> 7" in told and "It is 7." in told


def api(name: str, thing: str, function: str) -> dict:
    """The record of an API with one function, which another API may have by the same name."""
    id = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    said = {"schema": {"type": "object", "properties": {"sound": {"type": "string"}}}}
    operation = {
        "operationId": function,
        "summary": f"Find the {thing}.",
        "parameters": [id],
        "responses": {"200": {"description": "Found.", "content": {"application/json": said}}},
    }
    paths = {f"/{thing}s/{{id}}": {"get": operation}}
    document = {"openapi": "3.0.0", "info": {"title": name, "version": "1"}, "paths": paths}
    return {"Name": name, "Description": f"All {thing}s.", "Documentation": json.dumps(document)}


@pytest.fixture(scope="module")
def toolalpaca(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A ToolAlpaca run that knows by heart what to do with two requests, each to an API of its own."""
    resolved = {"recipe": "toolalpaca", "name": "run", "max_turns": 3}
    run = Run.start(tmp_path_factory.mktemp("toolalpaca") / "run", config_text="", resolved=resolved, resume=False)
    records = [api("Dogs", "bark of dog", "find"), api("Birds", "song of bird", "find")]
    write_json(run.folder("corpus") / "apis.json", records)
    apis = read_apis(run)
    sing = apis.owners[1][0]
    tasks = [
        Task(id="a", prompt=BARK, answer=BARKED, tools=tuple(apis.chosen(BARK)), gold=ToolCall("find", {"id": 7})),
        Task(id="b", prompt=SING, answer="It sings.", tools=tuple(apis.chosen(SING)), gold=ToolCall(sing, {"id": 8})),
    ]
    folder = run.folder("checkpoints")
    learned = write_by_heart(
        folder / "learn", tasks, served.ApiExecutorBuilder(apis.catalog)(), CorpusFormat(), max_length=640, steps=80
    )
    link = folder / f"learn-{learned.name}"
    link.symlink_to(Path("learn") / learned.name)
    run.point_best(link)
    return run


def test_a_question_is_offered_the_tools_of_the_api_that_suits_it(toolalpaca):
    opened = open_run(toolalpaca.path)
    first, second = opened.offering.names(BARK, opened.catalog.specs()), opened.offering.names(SING, ())
    assert first == ("getDetails", "find")
    assert second[1].startswith("find_for_Birds_"), "of two functions of one name the later says whose it is"
    assert opened.offering.names("zzz", ()) == first


def test_a_toolalpaca_run_calls_its_simulated_apis_here_where_it_may(toolalpaca):
    with asked(toolalpaca) as client:
        assert [model.id for model in client.models.list()] == ["run", "run:learn"]
        choice = ask(client, BARK, extra_body={"apprentice": {"execute": True}})
        assert (choice.message.content, choice.finish_reason) == (BARKED, "stop")
        turn = choice.message.apprentice["episode"]["turns"][0]
        assert turn["calls"] == [{"tool": "find", "arguments": {"id": 7}}]
        assert turn["observations"][0]["status"] == "ok" and "sound" in turn["observations"][0]["content"]
        (call,) = ask(client, SING, extra_body={"apprentice": {"every_tool": True}}).message.tool_calls
        assert call.function.name.startswith("find_for_Birds_")


def test_a_toolalpaca_policy_reads_tools_that_a_request_describes(toolalpaca):
    function = {"name": "bark_of", "description": "Find the bark of dog.", "parameters": {"type": "object"}}
    own = {"type": "function", "function": function}
    with asked(toolalpaca) as client:
        choice = ask(client, BARK, tools=[own], tool_choice="required", max_tokens=30)
        called = [call.function.name for call in choice.message.tool_calls or ()]
        assert called in ([], ["bark_of"]) and "bark_of" in choice.message.apprentice["reply"]
        strange = {"name": "find it", "parameters": {}}
        twice = [own, own]
        for tools, told in (
            ([{"type": "function", "function": strange}], "cannot be a tool's name"),
            (twice, "two tools are named 'bark_of'"),
            ([{"type": "function", "function": function | {"parameters": {"type": "nothing"}}}], "JSON Schema"),
            ([{"type": "function", "function": function | {"parameters": {"properties": {"a": True}}}}], "of its own"),
        ):
            with pytest.raises(openai.BadRequestError, match=told) as refused:
                ask(client, BARK, tools=tools)
            assert str(refused.value.param).startswith("tools[")
        with pytest.raises(openai.BadRequestError, match="was not trained with a tool 'bark_of'"):
            ask(client, BARK, tools=[own], extra_body={"apprentice": {"execute": True}})
