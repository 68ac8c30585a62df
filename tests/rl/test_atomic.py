"""ToolGen's agent in the one episode loop."""

import json

import pytest
import torch

from executors.catalog import Catalog
from executors.executor import Executor
from executors.names import Identity
from executors.tool import tool
from executors.tools.describe import describe_tool
from executors.types import ToolCall, ToolSpec
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_tokens import add_tool_tokens, index_tools
from rl.serving.atomic import RETRIES, AtomicPolicy, given, named_before, retrieved
from rl.serving.engine import TransformersPolicy
from rollouts.episode import play
from rollouts.formats.atomic import ACTION, FINISH, AtomicFormat
from rollouts.policy import Request, Source
from rollouts.search import Searching, search
from rollouts.types import Completion, Sampling, Task


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


@tool
def rates(coin: str) -> str:
    """Tell what a coin is worth."""
    return "one"


TOOLS = Catalog([weather, rates])
CATALOG = Catalog([weather, rates, describe_tool(TOOLS)])
TASK = Task(id="t", prompt="Is it raining in Rome?", tools=("weather", "rates", "describe"))
NAMES = {"weather": Identity("weather", "Sky"), "rates": Identity("rates", "Coins"), "Finish": Identity("Finish")}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["Query: is it raining in Rome? city coin"], markers=[ACTION], vocab_size=320)


@pytest.fixture(scope="module")
def tokens():
    return index_tools(NAMES, "atomic")


@pytest.fixture(scope="module")
def model(tokenizer, tokens):
    model = build_model(len(tokenizer), width=32, layers=2, heads=2, max_length=256, seed=2)
    add_tool_tokens(model, tokenizer, list(tokens.texts.values()))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(5.0)
    return model.eval()


class Scripted:
    """An engine that writes what a script says and keeps what it was asked."""

    def __init__(self, tokenizer, script):
        self.name, self.version, self.tokenizer = "scripted", 0, tokenizer
        self.script, self.asked = list(script), []

    async def complete(self, request):
        self.asked.append(request)
        return Completion(text=self.script.pop(0))

    def release(self, session):
        pass


async def test_plan_act_read_call_observe_answer(tokenizer, tokens, model):
    script = [f"Look.\n{ACTION}<<Sky&&weather>>", '{"city": "Rome"}\n', f"{ACTION}{FINISH} Yes."]
    policy = AtomicPolicy(Scripted(tokenizer, script), tokens, "Finish")
    episode = await play(TASK, policy, Executor(CATALOG), AtomicFormat(), max_turns=8)
    assert [call.tool for call in episode.calls] == ["describe", "weather"]
    assert [o.content.split("\n")[0] for o in episode.observations] == [
        "weather: Tell the weather of a city.",
        "rain in Rome",
    ]
    assert episode.answer == "Yes." and episode.stop == "answer"
    assert policy.engine.asked[1].constraint is None and policy.engine.asked[0].constraint is not None


async def test_a_repeated_call_is_tried_again_with_more_chance(tokenizer, tokens, model):
    call = json.dumps({"city": "Rome"})
    named = f"{ACTION}<<Sky&&weather>>"
    script = [named, call, named, call, call, '{"city": "Oslo"}', f"{ACTION}{FINISH} done"]
    policy = AtomicPolicy(Scripted(tokenizer, script), tokens, "Finish", retries=RETRIES)
    episode = await play(TASK, policy, Executor(CATALOG), AtomicFormat(), max_turns=8)
    assert [c for c in episode.calls if c.tool == "weather"] == [
        ToolCall("weather", {"city": "Rome"}),
        ToolCall("weather", {"city": "Oslo"}),
    ]
    assert [asked.sampling.temperature for asked in policy.engine.asked][3:6] == [0.0, 0.6, 1.0]


async def test_giving_up_and_being_sorry_are_tried_again(tokenizer, tokens, model):
    script = [f"{ACTION}{FINISH} give_up_and_restart", f"{ACTION}{FINISH} I'm sorry", f"{ACTION}{FINISH} Yes"]
    policy = AtomicPolicy(Scripted(tokenizer, script), tokens, "Finish", retries=RETRIES)
    assert (await play(TASK, policy, Executor(CATALOG), AtomicFormat())).answer == "Yes"
    once = AtomicPolicy(Scripted(tokenizer, [f"{ACTION}{FINISH} I'm sorry"]), tokens, "Finish")
    assert (await play(TASK, once, Executor(CATALOG), AtomicFormat())).answer == "I'm sorry"


@pytest.mark.parametrize(("retries", "told"), [((), True), (RETRIES, False)])
async def test_what_may_yet_be_taken_back_is_not_told(tokenizer, tokens, retries, told):
    engine = Scripted(tokenizer, [f"{ACTION}{FINISH} Yes."])
    request = Request(task=TASK, segments=(), session="s", on_text=[].append)
    await AtomicPolicy(engine, tokens, "Finish", retries=retries).complete(request)
    assert (engine.asked[0].on_text is not None) == told


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_real_engine_never_names_a_tool_that_there_is_not(tokenizer, tokens, model, temperature):
    policy = AtomicPolicy(TransformersPolicy("p", model, tokenizer), tokens, "Finish")
    source = Source(name="s", policy="p", force="call", sampling=Sampling(temperature=temperature, max_tokens=12))
    for seed in range(6):
        episode = await play(TASK, policy, Executor(CATALOG), AtomicFormat(), source=source, seed=seed, max_turns=2)
        first = episode.turns[0]
        assert first.completion.text.startswith(ACTION)
        if first.calls:
            assert first.call.tool == "describe" and first.observation.ok
        else:
            assert FINISH in first.completion.text


async def test_only_the_tools_that_are_given_may_be_named(tokenizer, tokens, model):
    task = Task(id="t", prompt="?", tools=("rates", "describe"))
    assert given(task) == ("rates",)
    policy = AtomicPolicy(
        TransformersPolicy("p", model, tokenizer), tokens, "Finish", without=lambda request: ("rates",)
    )
    source = Source(name="s", policy="p", force="call", sampling=Sampling(max_tokens=12))
    episode = await play(task, policy, Executor(CATALOG), AtomicFormat(), source=source, max_turns=2)
    assert not episode.calls and FINISH in episode.text
    every = AtomicPolicy(TransformersPolicy("p", model, tokenizer), tokens, "Finish", provider=lambda task: None)
    episode = await play(task, every, Executor(CATALOG), AtomicFormat(), source=source, max_turns=1)
    assert episode.turns


def test_a_retriever_gives_the_tools_that_share_words_with_a_request():
    provider = retrieved(CATALOG.specs(), 1)
    assert provider(TASK) == []
    assert provider(Task(id="t", prompt="The weather of any city?")) == ["weather"]
    assert provider(Task(id="t", prompt="Which coin is worth more?")) == ["rates"]


async def test_arguments_are_held_to_the_schema_of_their_tool(tokenizer, tokens, model):
    pytest.importorskip("llguidance")
    closed = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
    specs = {"weather": ToolSpec("weather", "", closed | {"additionalProperties": False})}
    script = Scripted(tokenizer, [f"{ACTION}<<Sky&&weather>>"] * 3)
    naming = AtomicPolicy(script, tokens, "Finish")
    engine = TransformersPolicy("p", model, tokenizer)
    policy = AtomicPolicy(engine, tokens, "Finish", schemas=specs, max_arguments=40)

    class Both:
        name, version = "both", 0

        async def complete(self, request):
            return await (naming if not request.turns else policy).complete(request)

        def release(self, session):
            engine.release(session)

    for seed in range(3):
        source = Source(name="s", policy="p", sampling=Sampling(temperature=1.0))
        episode = await play(TASK, Both(), Executor(CATALOG), AtomicFormat(), source=source, seed=seed, max_turns=2)
        assert episode.calls[1].arguments["city"] in ("Rome", "Oslo") and episode.observations[1].ok
    unknown = ToolSpec("rates", "", {"type": "object", "not": {"required": ["x"]}})
    freely = AtomicPolicy(engine, tokens, "Finish", schemas={"rates": unknown})
    assert freely._held_to_schema("rates") is None and freely._held_to_schema("weather") is None


async def test_a_search_names_other_tools_where_it_goes_back(tokenizer, tokens, model):
    script = [f"{ACTION}<<Sky&&weather>>", '{"city": "Rome"}', f"{ACTION}{FINISH} give_up_and_restart"]
    policy = AtomicPolicy(Scripted(tokenizer, [*script, f"{ACTION}{FINISH} Yes."]), tokens, "Finish")
    found = await search(TASK, policy, Executor(CATALOG), AtomicFormat(), Searching(back=3))
    assert found.episode().answer == "Yes." and len(found.ways()) == 2
    (tried,) = policy.engine.asked[-1].tried
    assert named_before(policy.engine.asked[-1]) == ("weather",) and tried.call.tool == "describe"
    engine = TransformersPolicy("p", model, tokenizer)
    free = AtomicPolicy(engine, tokens, "Finish")
    source = Source(name="s", policy="p", force="call", sampling=Sampling(max_tokens=12))
    both = await search(TASK, free, Executor(CATALOG), AtomicFormat(), Searching(depth=1, width=3), source=source)
    named = [node.turn.call.arguments["tool"] for node in both.children if node.turn.calls]
    assert len(named) == len(set(named))
