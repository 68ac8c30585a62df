"""ToolGen runs at work: asked over HTTP by the official client, evaluated, talked to."""

import io
import json
from collections.abc import Iterator

import cloudpickle
import openai
import pytest
import torch
from rich.console import Console

from executors.errors import DataError
from executors.listening import listen
from executors.names import Identity
from executors.tools.describe import documentation
from executors.types import MalformedCall, ToolCall, ToolSpec
from rl.data.searches import searched
from rl.data.tasks.toolbench import ToolBench
from rl.data.toolgen import examples, seeded
from rl.learner import checkpoint
from rl.learner.learner import Learner, Stage
from rl.learner.optimiser import OptimiserConfig
from rl.losses.objective import Sft
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_tokens import FINISH, ToolTokens, add_tool_tokens, index_tools
from rl.recipes.served import Wanted, _served, open_run
from rl.recipes.toolgen_attempts import TOKENS, ToolGenOpener
from rl.recipes.toolgen_config import Attempts
from rl.recipes.trained import evaluate_checkpoint
from rl.run import Run, write_json
from rl.serving.chat import ChatServer
from rl.serving.execution import Execution
from rl.serving.http import ChatEngine, build_api
from rl.serving.repl import converse
from rl.serving.weights import Weights
from rollouts.formats.atomic import ACTION, JoinedFormat
from rollouts.policy import Source
from rollouts.search import Searching, search
from rollouts.types import Sampling, Task

QUESTION, ANSWER = "Is it raining in Rome?", "Yes, it rains."
CITY = {"name": "city", "type": "STRING", "description": "", "default": ""}
SEEN = "rain"


def api(owner: str, name: str, *required: dict) -> dict:
    return {
        "category_name": "All",
        "tool_name": owner,
        "api_name": name,
        "api_description": f"Tells of {name}.",
        "required_parameters": list(required),
        "optional_parameters": [],
        "template_response": {"said": "str"},
    }


SKY, COINS = api("Sky", "weather", CITY), api("Coins", "rates")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run whose checkpoint knows one attempt by heart."""
    folder = tmp_path_factory.mktemp("toolgen")
    queries = [
        {"query": QUESTION if not n else f"Question {n}?", "query_id": n, "api_list": [SKY, COINS]}
        | {"relevant APIs": [["Sky", "weather"]]}
        for n in range(24)
    ]
    write_json(folder / "data" / "stabletoolbench" / "G1_tool.json", queries)
    attempts = {"tasks": 2, "max_turns": 2, "max_tokens": 60, "max_arguments": 30, "max_documentation": 60}
    resolved = {"recipe": "toolgen", "name": "tools", "attempts": attempts}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPRENTICE_DATA", str(folder / "data"))
        run = Run.start(folder / "run", config_text="", resolved=resolved, resume=False)
        write_checkpoint(run)
        yield run


def write_checkpoint(run: Run) -> None:
    torch.set_num_threads(1)
    data = ToolBench().load()
    tokens = index_tools({name: tool.identity for name, tool in data.tools.items()}, "atomic")
    texts = {**tokens.texts, "Finish": FINISH}
    write_json(run.path / TOKENS, texts)
    weather = next(tool.spec for tool in data.tools.values() if tool.identity.raw == "weather")
    step = {"thought": "Look.", "action": texts[weather.name], "action_input": {"city": "Rome"}, "observation": SEEN}
    row = {"query": QUESTION, "plan_sequence": [step | {"documentation": documentation(weather)[:60]}]}
    learned = seeded("agent", row | {"final_answer": ANSWER}, "by-heart")
    words = [message.text for message in learned[0].messages] * 3
    tokenizer = build_tokenizer([*words, "0123456789"], markers=[ACTION], vocab_size=360, max_length=256)
    model = build_model(len(tokenizer), width=48, layers=2, heads=4, max_length=256, seed=0)
    add_tool_tokens(model, tokenizer, list(texts.values()))
    rows = examples(learned, tokenizer)
    assert len(rows) == len(learned)
    learner = Learner(model, pad_id=0)
    learner.begin(Stage(name="by-heart", objective=Sft(), optimiser=OptimiserConfig(), steps=80))
    for number in range(80):
        learner.step(rows, number)
    checkpoint.save(run.folder("checkpoints") / "agent", 80, model, tokenizer, learner.state())
    (run.path / "checkpoints" / "agent-step-80").symlink_to(run.path / "checkpoints" / "agent" / "step-80")
    run.point_best(run.path / "checkpoints" / "agent-step-80")


@pytest.fixture(scope="module")
def client(run: Run) -> Iterator[openai.OpenAI]:
    served = cloudpickle.loads(cloudpickle.dumps(_served("tools", run.path, Wanted(execute=True))))
    specs = served.catalog.specs()

    def build(policy):
        execution = Execution(executor=served.executor(), max_turns=served.max_turns)
        return ChatServer(policy, served.format, specs, sampling=Sampling(max_tokens=60), execution=execution)

    weights = Weights(served.name, served.published(), served.opener, build)
    with (
        listen(build_api(ChatEngine(weights))) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def tools(run: Run) -> dict[str, dict]:
    return {spec.name.split("_")[0]: spec.as_openai() for spec in open_run(run.path).catalog.specs()}


def asked(client, *messages, **fields):
    question = {"role": "user", "content": QUESTION}
    return client.chat.completions.create(model="tools", messages=[question, *messages], **fields)


def test_a_call_and_its_result_lead_to_the_answer(client, tools):
    choice = asked(client, tools=list(tools.values())).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == tools["weather"]["function"]["name"]
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    reply = choice.message.apprentice["reply"]
    assert reply.startswith("Look.\nAction:<<Sky&&weather>>\n") and "Tells of weather." in reply
    result = {"role": "tool", "tool_call_id": call.id, "content": SEEN}
    plain = {"role": "assistant", "tool_calls": [call.model_dump()]}
    for caller in (choice.message, plain | {"content": "Look."}):
        final = asked(client, caller, result, tools=list(tools.values())).choices[0]
        assert (final.message.content, final.finish_reason) == (ANSWER, "stop")


def test_calls_and_answers_are_streamed(client, tools):
    chunks = list(asked(client, tools=list(tools.values()), stream=True))
    (call,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    result = {"role": "tool", "tool_call_id": call.id, "content": SEEN}
    told = {"role": "assistant", "content": "Look.", "tool_calls": [call.model_dump(exclude={"index"})]}
    chunks = list(asked(client, told, result, tools=list(tools.values()), stream=True))
    contents = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(contents) == ANSWER and len(contents) > 1


def test_only_tools_of_the_request_can_be_called(client, tools):
    for choice in ("auto", "required", {"type": "function", "function": {"name": tools["rates"]["function"]["name"]}}):
        reply = asked(client, tools=[tools["rates"]], tool_choice=choice, temperature=1.0, seed=3).choices[0]
        calls = reply.message.tool_calls or []
        assert all(call.function.name == tools["rates"]["function"]["name"] for call in calls)
        assert calls or choice == "auto"
        assert all(json.loads(call.function.arguments) == {} for call in calls)
    direct = asked(client, tools=list(tools.values()), tool_choice="none").choices[0]
    assert direct.finish_reason in ("stop", "length") and not direct.message.tool_calls


def test_replies_tell_their_tokens_and_may_follow_a_schema(client, tools):
    reply = asked(client, tools=list(tools.values()), logprobs=True, top_logprobs=1)
    told = reply.choices[0].logprobs.content
    assert "".join(one.token for one in told).startswith("Look.\nAction:<<Sky&&weather>>")
    given = [one for one in told if not one.top_logprobs]
    assert given and {one.logprob for one in given} == {0.0} and len(given) < len(told)
    assert reply.usage.completion_tokens == len(told)
    shape = {"type": "object", "properties": {"rain": {"type": "boolean"}}, "required": ["rain"]}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": shape | {"additionalProperties": False}}}
    held = asked(client, response_format=schema).choices[0]
    assert json.loads(held.message.content)["rain"] in (True, False)
    raw = client.completions.create(model="tools", prompt=f"Query: {QUESTION}\n", max_tokens=6)
    assert raw.choices[0].text.startswith("Look.")
    with pytest.raises(openai.BadRequestError) as refused:
        asked(client, {"role": "user", "content": "rain " * 400}, tools=list(tools.values()))
    assert refused.value.code == "context_length_exceeded"


def test_all_tools_are_offered_without_being_sent(client, tools):
    every = {"apprentice": {"every_tool": True}}
    (call,) = asked(client, extra_body=every).choices[0].message.tool_calls
    assert call.function.name == tools["weather"]["function"]["name"]
    assert not asked(client, extra_body=every, tool_choice="none").choices[0].message.tool_calls
    with pytest.raises(openai.BadRequestError, match="leave 'tools' out"):
        asked(client, tools=[tools["rates"]], extra_body=every)


def test_the_server_runs_its_tools_where_it_may(client):
    reply = asked(client, extra_body={"apprentice": {"execute": True}}).choices[0]
    turns = reply.message.apprentice["episode"]["turns"]
    (call,) = turns[0]["calls"]
    assert call["arguments"] == {"city": "Rome"}
    (seen,) = turns[0]["observations"]
    assert seen["status"] == "ok" and "said" in seen["content"]


def test_a_checkpoint_is_evaluated_and_its_ways_are_left_for_toolbench(run):
    ratios = evaluate_checkpoint(run.path, "best", "test")
    assert {"ndcg@5", "selected", "attempt_called", "attempt_invented"} <= ratios.keys()
    assert sum(ratios["hallucinated_constrained"].parts) == sum(ratios["attempt_invented"].parts) == 0
    folder = run.path / "evaluation" / "attempts-agent-step-80-test"
    told = json.loads((folder / "answers.json").read_text())
    assert len(told) == 2 and all(one["answer"]["method"] == "CoT@1" for one in told.values())
    with pytest.raises(DataError, match="no checkpoint 'step-7'"):
        evaluate_checkpoint(run.path, "step-7", "test")


def test_a_policy_is_talked_to(run, monkeypatch):
    opened = open_run(run.path)
    assert opened.opener is not None
    policy = opened.opener(opened.checkpoints / "best", 0)
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n"))
    converse(
        policy,
        opened.format,
        opened.builder(),
        sampling=Sampling(max_tokens=60),
        max_turns=2,
        console=Console(file=out, width=200),
    )
    assert "weather" in out.getvalue() and "city='Rome'" in out.getvalue()


async def test_a_search_tries_other_tools_and_is_written_as_whole_calls(run):
    opened = open_run(run.path)
    assert opened.opener is not None
    policy = opened.opener(opened.checkpoints / "best", 0)
    task = Task(id="t", prompt=QUESTION, tools=opened.catalog.names)
    source = Source(name="s", policy="tools", force="call", sampling=Sampling(max_tokens=60))
    executor = opened.builder()
    found = await search(task, policy, executor, opened.format, Searching(depth=1, width=2), source=source)
    named = [call.tool for node in found.children if isinstance(call := node.turn.call, ToolCall)]
    assert sorted(named) == sorted(opened.catalog.names)
    written = searched(found, opened.format, opened.catalog.specs())
    assert [step.text for way in written.ways() for step in way if step.kind == "Action"] == named


def test_whole_calls_are_read_as_they_are_written():
    spec = ToolSpec("weather", "Tells of weather.")
    format = JoinedFormat({spec.name: "<<Sky&&weather>>", "Finish": FINISH})
    call = ToolCall(spec.name, {"city": "Rome\nInput: x"})
    assert format.parse(format.write_calls([call], [spec], "Look."), [spec]) == (call,)
    for text in (f"{ACTION}<<No>>\nInput: {{}}", f"{ACTION}<<Sky&&weather>>", f"{ACTION}<<Sky&&weather>>\nInput: x"):
        (wrong,) = format.parse(text, [spec])
        assert isinstance(wrong, MalformedCall) and wrong.error
    answer = format.write_answer("Action: none")
    assert format.parse(answer, [spec]) == () and format.answer(answer) == "Action: none"
    assert format.answer_so_far(f"{ACTION}{FINISH} give_up", ()) is None


def test_a_provider_chooses_what_may_be_named(run):
    identity = {"weather": Identity("weather", "Sky"), "rates": Identity("rates", "Coins")}
    tokens = ToolTokens("atomic", {**index_tools(identity, "atomic").texts, "Finish": FINISH})
    specs = tuple(tool.spec for tool in ToolBench().load().tools.values())
    name = {spec.name.split("_")[0]: spec.name for spec in specs}
    task = Task(id="t", prompt="weather?", tools=(name["rates"],))

    def offered(**options):
        served = options.pop("offered", True)
        opener = ToolGenOpener("x", tokens, specs, Attempts(retrieved=1, **options), served)
        names = opener._provider()(task)
        return None if names is None else list(names)

    assert offered() == offered(provider="all") == offered(offered=False) == [name["rates"]]
    assert offered(provider="all", offered=False) is None
    assert offered(provider="retriever", offered=False) == [name["weather"]]
    assert offered(provider="retriever") == []


def test_what_an_unfinished_run_lacks_is_said(run, tmp_path):
    run = Run.start(tmp_path / "run", config_text="", resolved={"recipe": "toolgen", "name": "x"}, resume=False)
    with pytest.raises(DataError, match=r"tool_tokens\.json that can be read"):
        open_run(run.path)
