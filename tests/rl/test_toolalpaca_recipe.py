"""The ToolAlpaca recipe: one small run, resumed; its files; and the rule that judges attempts."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from executors.corpus.composition import compose
from executors.corpus.entries import Entry
from executors.corpus.toolset import GET_DETAILS, toolset
from executors.errors import ConfigError
from executors.openapi.tools import read_openapi
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ScriptedUser
from rl.config import read_yaml, validate
from rl.data.corpus import read_corpus_api
from rl.data.segments import read_segments
from rl.data.toolalpaca import read_instances
from rl.evaluation.intervals import figures
from rl.evaluation.simulated_apis import judge, play_requests, ratios, requests_of
from rl.progress import Progress
from rl.recipes.registry import config_class, trained_alone
from rl.recipes.toolalpaca import ToolAlpacaConfig, train
from rl.recipes.trained import evaluate_checkpoint
from rl.run import Run
from rollouts.instances import CorpusFormat, ScriptedAssistant, generate
from rollouts.instructions import planned_instructions
from rollouts.plans import Planner
from rollouts.policy import ScriptedPolicy, Source

ENTRIES = [
    {"Name": f"{name} {number}", "Description": f"All about {name}", "Category": category}
    for name, category in (("Songs", "Music"), ("Books", "Books"), ("Pets", "Animals"), ("Movies", "Video"))
    for number in range(3)
]


@pytest.fixture
def config(tmp_path):
    (tmp_path / "apis.json").write_text(json.dumps(ENTRIES))
    return ToolAlpacaConfig.model_validate(
        {
            "name": "small",
            "corpus": {
                "entries": str(tmp_path / "apis.json"),
                "apis": 4,
                "held_out": 2,
                "instances": 14,
                "test_requests": 2,
                "distractors": 1,
            },
            "model": {"kind": "tiny", "width": 16, "heads": 2, "layers": 1, "vocab_size": 400, "max_length": 3072},
            "learning": {
                "steps": 2,
                "batch_size": 2,
                "copying": {"instances": 30, "steps": 3, "batch_size": 2},
            },
            "improvement": {"rounds": 1, "requests": 4, "attempts": 2, "steps": 1},
            "max_turns": 2,
            "max_tokens": 8,
        }
    )


def test_a_run_makes_a_corpus_learns_it_and_is_measured_and_resumes_from_its_files(tmp_path, config):
    folder = tmp_path / "run"
    resolved = config.model_dump(mode="json")
    run = Run.start(folder, config_text="", resolved=resolved, resume=False)
    summary = train(config, run, Progress())
    assert summary["base"]["procedure"]["value"] == 0
    assert summary["base"]["n"] == 4 and summary["learned"] == 14
    files = sorted((folder / "corpus" / "instances").iterdir())
    assert len(files) == 4
    assert sum(len(read_instances(path)) for path in files) == 14
    rows = read_segments(folder / "corpus" / "train.json")
    assert len(rows) == 14
    for one in map(read_corpus_api, files):
        own = {operation.name for operation in one.api.operations}
        asked = [instance.task.prompt for instance in one.instances]
        beside = [offered(row.text) - own for row in rows if any(f"USER: {text}\n" in row.text for text in asked)]
        assert all(names > {GET_DETAILS} for names in beside), "another API's functions stand beside its own"
        assert len(set(map(frozenset, beside))) > 1, "which one that is differs from attempt to attempt"
    assert (folder / "checkpoints" / "best").resolve().is_dir()
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    fits = {one["stage"]: one for one in ledger if one["stage"] in ("copying", "learn")}
    assert list(fits) == ["copying", "learn"] and fits["copying"]["path"].endswith("copying/step-3")
    one = read_corpus_api(files[0])
    assert len(one.record["Golden_Answers"]) == len(one.record["Instructions"]) == len(one.instances)
    before = {path: path.stat().st_mtime_ns for path in [*files, folder / "evaluation" / "start.json"]}
    again = train(config, Run.start(folder, config_text="", resolved=resolved, resume=True), Progress())
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again["start"] == summary["start"] and again["final"] == summary["final"]
    played = figures(evaluate_checkpoint(folder, "learn", "test"))
    assert {name: one.as_json() for name, one in played.items()} | {"n": 4} == summary["start"]
    assert (folder / "evaluation" / "learn-step-2-test.jsonl").is_file(), "the attempts are kept, as the run's own are"
    with pytest.raises(ConfigError, match="leave --split out"):
        evaluate_checkpoint(folder, "learn", "validation")


def test_a_model_that_reads_less_than_most_attempts_take_is_refused_before_anything_is_learned(tmp_path, config):
    short = config.model_copy(update={"model": config.model.model_copy(update={"max_length": 100})})
    run = Run.start(tmp_path / "run", config_text="", resolved={}, resume=False)
    with pytest.raises(ConfigError, match=r"model\.max_length: 100 tokens, and 14 of 14 attempts of the corpus are"):
        train(short, run, Progress())
    assert not (run.path / "checkpoints" / "learn").exists()


def offered(text: str) -> set[str]:
    """The functions that a prompt names."""
    return set(re.findall(r"one of \[(.*?)\]", text)[0].split(", "))


@pytest.fixture(scope="module")
def requests():
    entry = Entry(name="Tunes", description="Songs and albums", category="Music")
    api = read_openapi(compose(entry, 1))
    asked = planned_instructions("Tunes", Planner("Tunes", api.operations), 6)
    groups = asyncio.run(generate("Tunes", asked, Simulation(api)))
    required = {one.name: one.parameters.get("required", ()) for one in api.operations}
    made = requests_of("Tunes", Simulation(api), asked, {group.task.id: group for group in groups}, required)
    return made, {group.task.id: one.plan for group, one in zip(groups, asked, strict=True)}


def played(requests, policy):
    groups = play_requests(requests, policy, CorpusFormat(), source=Source(name="s", policy="p"), seed=0)
    return [judge(one, group.episodes[0]) for one, group in zip(requests, groups, strict=True)]


def test_the_expected_attempts_are_right_in_every_way(requests):
    made, plans = requests
    judged = played(made, ScriptedAssistant(plans, CorpusFormat()))
    assert all(one.overall and one.function and one.calls == one.good_calls for one in judged)
    assert {name: sum(ratio.parts) for name, ratio in ratios(judged).items() if name != "good_calls"} == {
        "procedure": 6,
        "response": 6,
        "overall": 6,
        "answered": 6,
        "first_function": 6,
    }


def test_an_answer_without_calls_and_a_wrong_call_are_wrong(requests):
    made, _ = requests
    for one in played(made, ScriptedPolicy("p", lambda task: [" Sure.\nASSISTANT Response: It is done."])):
        assert one.answered and not one.procedure and not one.response
    call = " Hm.\nASSISTANT Action: nothing\nASSISTANT Action Input: {}\nASSISTANT Observation:"
    for one in played(made, ScriptedPolicy("p", lambda task: [call, " Well.\nASSISTANT Response: It is done."])):
        assert one.calls == 1 and one.good_calls == 0 and not one.function and not one.overall


def test_a_call_of_another_api_s_function_is_answered_and_wrong(requests):
    made, plans = requests
    pets = Simulation(read_openapi(compose(Entry(name="Pets", description="Cats", category="Animals"), 2)))
    assert pets.api.operations[0].name not in made[0].task.tools
    tools = [tool.name for tool in toolset(made[0].simulation, ScriptedUser(), beside=[pets])]
    assert set(tools) == {*made[0].task.tools, *(one.name for one in pets.api.operations)} and tools[0] == GET_DETAILS
    assert tools[1:] != [*made[0].task.tools[1:], *tools[len(made[0].task.tools) :]], "their place does not tell whose"
    both = [
        replace(one, beside=(pets,), task=replace(one.task, tools=tuple(tools))) for one in made if len(one.gold) == 1
    ]
    script, source = ScriptedAssistant(plans, CorpusFormat()), Source(name="s", policy="p")
    right = play_requests(both, script, CorpusFormat(), source=source, seed=0)
    assert both and all(judge(one, group.episodes[0]).overall for one, group in zip(both, right, strict=True))
    other = next(one for one in pets.api.operations if not one.parameters.get("required"))
    stray = f" Hm.\nASSISTANT Action: {other.name}\nASSISTANT Action Input: {{}}\nASSISTANT Observation:"
    replies = {group.task.id: [turn.completion.text for turn in group.episodes[0].turns] for group in right}
    for one in played(both, ScriptedPolicy("p", lambda task: [stray, *replies[task.id]])):
        assert one.good_calls == 2 and one.response and not one.procedure


def test_a_right_attempt_is_worth_more_than_any_wrong_one(requests):
    made, plans = requests
    right = played(made, ScriptedAssistant(plans, CorpusFormat()))
    wrong = played(made, ScriptedPolicy("p", lambda task: [" Sure.\nASSISTANT Response: It is done."]))
    assert min(one.reward for one in right) > max(one.reward for one in wrong)


@pytest.mark.parametrize("name", ["tiny", "full"])
def test_the_configs_are_whole_and_the_command_knows_the_recipe(name):
    content = read_yaml(Path(__file__).parents[2] / "configs" / "toolalpaca" / f"{name}.yaml")
    recipe = config_class(content["recipe"], name, alone=True)
    assert isinstance(validate(content, recipe, name), ToolAlpacaConfig)
    assert trained_alone("toolalpaca") is train


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ({"apis": 5, "instances": 4}, r"4 are fewer than corpus\.apis 5"),
        ({"held_out": 3, "distractors": 3}, r"corpus\.distractors: 3, and beside one API there are 2 more"),
    ],
)
def test_a_corpus_that_cannot_be_is_refused(corpus, said):
    with pytest.raises(ConfigError, match=said):
        validate({"recipe": "toolalpaca", "name": "x", "corpus": corpus}, ToolAlpacaConfig, "x")
