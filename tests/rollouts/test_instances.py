import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from executors.corpus.composition import compose
from executors.corpus.entries import Entry
from executors.corpus.toolset import api_executor, date_tool
from executors.http.client import Answer
from executors.openapi.tools import read_openapi
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ScriptedUser
from executors.types import MalformedCall, Scene, ToolCall
from rollouts.instances import CorpusFormat, generate
from rollouts.instructions import planned_instructions
from rollouts.plans import Planner, result_of
from rollouts.policy import ScriptedPolicy

MUSIC = Entry(name="Tunes", description="Songs and albums", category="Music")


@pytest.fixture(scope="module")
def api():
    return read_openapi(compose(MUSIC, 1))


@pytest.fixture(scope="module")
def requests(api):
    return planned_instructions(MUSIC.name, Planner(MUSIC.name, api.operations), 10)


async def test_the_script_brings_every_request_to_an_answer_with_the_planned_calls(api, requests):
    groups = await generate(MUSIC.name, requests, Simulation(api))
    for group, one in zip(groups, requests, strict=True):
        episode = group.episodes[0]
        assert episode.stop == "answer"
        assert one.plan is not None
        assert [getattr(call, "tool", "") for call in episode.calls] == [call.tool for call in one.plan.calls]
        assert all(observation.ok for observation in episode.observations)


async def test_what_was_found_is_what_is_asked_about_next(api, requests):
    groups = await generate(MUSIC.name, requests, Simulation(api))
    chained = 0
    for group, one in zip(groups, requests, strict=True):
        if "${" not in str(one.plan.calls[-1].arguments):
            continue
        chained += 1
        found, used = group.episodes[0].observations[0].content, group.episodes[0].calls[-1]
        assert isinstance(used, ToolCall)
        key = next(value for value in used.arguments.values() if str(value) in found)
        assert str(key) in str(result_of(found))
    assert chained


async def test_the_user_says_what_was_left_out(api):
    planner = Planner(MUSIC.name, api.operations)
    plan = next(plan for plan in map(planner.plan, range(200)) if plan.details)
    one = replace(planned_instructions(MUSIC.name, planner, 1)[0], plan=plan)
    groups = await generate(MUSIC.name, [one], Simulation(api))
    assert groups[0].episodes[0].observations[0].content == plan.details


async def test_one_attempt_that_fails_leaves_the_others_alone(api, requests):
    unplanned = replace(requests[0], plan=None)
    groups = await generate(MUSIC.name, [unplanned, *requests[1:3]], Simulation(api))
    assert [group.episodes[0].stop for group in groups] == ["failed", "answer", "answer"]


async def test_an_assistant_that_never_answers_is_stopped(api, requests):
    name = api.operations[0].name
    call = f" Again.\nASSISTANT Action: {name}\nASSISTANT Action Input: {{}}\nASSISTANT Observation:"
    policy = ScriptedPolicy("loop", lambda task: [call] * 40)
    groups = await generate(MUSIC.name, requests[:1], Simulation(api), assistant=policy)
    assert groups[0].episodes[0].stop == "turn_limit"
    assert len(groups[0].episodes[0].calls) == 15


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing\nASSISTANT Action: f\nASSISTANT Action Input: [1]", "'Action Input' cannot be a list. Only call"),
        ("nothing\nASSISTANT Action: f\nASSISTANT Action Input: {a", "Invalid JSON format. Please ensure"),
        ("nothing\nASSISTANT Action: g\nASSISTANT Action Input: {}", "`g` is not a valid action. The action must be"),
    ],
)
def test_what_is_no_call_is_answered_word_for_word(text, said, api):
    specs = [replace(api.operations[0].spec, name="f")]
    call = CorpusFormat().parse(text, specs)[0]
    assert isinstance(call, MalformedCall)
    assert call.error.startswith(said)


async def test_failures_bring_a_hint_and_the_fourth_one_asks_for_an_end(api):
    executor = api_executor(Simulation(api, "strict"))
    keyed = next(one for one in api.operations if one.path.endswith("}") and one.method == "GET")
    key = keyed.parameters["required"][0]
    value = 4 if keyed.parameters["properties"][key]["type"] == "integer" else "4"
    session = executor.open(Scene("e", 0, {}))
    said = [(await session.arun(ToolCall(keyed.name, {key: value}))).content for _ in range(4)]
    assert said[0].startswith("Status Code: 404. Response: ")
    assert said[0].endswith("Call another function, or give the answer with what is known.")
    assert said[3].endswith("give the final answer with what is known.")
    assert "more than three times" in said[3]
    await session.aclose()


async def test_missing_and_mistyped_inputs_are_told_in_the_words_of_the_corpus():
    apis = (read_openapi(compose(MUSIC, seed)) for seed in range(50))
    api = next(api for api in apis if "enum" in json.dumps([one.parameters for one in api.operations]))
    executor = api_executor(Simulation(api), ScriptedUser())
    seen = await executor.arun(ToolCall("getDetails", {}))
    assert seen.content == 'Missing required parameters: "Question". You need to change the input and try again.'
    chosen = next(one for one in api.operations if "enum" in json.dumps(one.parameters))
    name = next(name for name, schema in chosen.parameters["properties"].items() if "enum" in schema)
    needed = {other: "1" for other in chosen.parameters.get("required", ()) if other != name}
    seen = await executor.arun(ToolCall(chosen.name, {**needed, name: "nonsense"}))
    assert f'Parameter type error: "{name}", expected one of' in seen.content


class Wordy:
    """A backend with one very long answer."""

    def __init__(self, api):
        self.api = api

    def open(self, scene):
        return None

    def answer(self, world, name, arguments, /):
        cities = [{"city": f"Town {number}", "mayor": f"Mayor {number}"} for number in range(300)]
        return Answer(status=200, text=json.dumps([*cities, {"city": "Lisbon", "mayor": "Kavya Ito"}]))


async def test_an_answer_that_is_too_long_is_put_into_a_file_and_read_there(api):
    session = api_executor(Wordy(api), retrieval=True).open(Scene("e", 0, {}))
    free = next(one for one in api.operations if not one.parameters.get("required"))
    seen = await session.arun(ToolCall(free.name, {}))
    assert "in the file retrieval_1.txt" in seen.content and len(seen.content) <= 3000
    read = ToolCall("retrievalDataFromFile", {"file_path": "retrieval_1.txt", "query": "the mayor of Lisbon"})
    assert "Kavya Ito" in (await session.arun(read)).content
    read = ToolCall("retrievalDataFromFile", {"file_path": "/etc/passwd", "query": "root"})
    seen = await session.arun(read)
    assert seen.status == "bad_call" and "there are: retrieval_1.txt" in seen.content
    await session.aclose()


async def test_a_model_may_read_the_file(api):
    async def reader(messages, **options):
        assert "Kavya Ito" in messages[-1]["content"] and "The question: who?" in messages[-1]["content"]
        return " Kavya Ito. "

    session = api_executor(Wordy(api), retrieval=True, reader=reader).open(Scene("e", 0, {}))
    free = next(one for one in api.operations if not one.parameters.get("required"))
    await session.arun(ToolCall(free.name, {}))
    read = ToolCall("retrievalDataFromFile", {"file_path": "retrieval_1.txt", "query": "who?"})
    assert (await session.arun(read)).content == "Kavya Ito."
    await session.aclose()


async def test_the_date_is_told_to_the_second():
    tool = date_tool(lambda: datetime(2026, 11, 20, 18, 5, 9, tzinfo=UTC))
    assert tool() == "The current date and time is 2026-11-20 18:05:09."
