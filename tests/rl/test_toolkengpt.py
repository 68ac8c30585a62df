"""ToolkenGPT's recipe: one small run, what it learns from attempts, and its configs."""

import json
import re
from pathlib import Path

import pytest

from executors.errors import DataError
from executors.types import Observation, ToolCall
from rl.config import read_yaml, validate
from rl.data.decisions import decided
from rl.data.spans import MASKED, Marked, Span
from rl.evaluation.attempts import attempt_ratios, by_habit, relation_ratios, right_answer
from rl.evaluation.seeds import pool_kept, tall
from rl.models.tool_head import ToolHead
from rl.progress import Progress
from rl.recipes.checked import stage_checks
from rl.recipes.toolgen import ToolGenConfig
from rl.recipes.toolkengpt import ToolkenGptConfig, train
from rl.recipes.toolkengpt_prompts import prompts
from rl.run import Run
from rollouts.types import Completion, Episode, Group, Task, Turn
from tests.executors.shared_data import shared

CONFIGS = Path(__file__).parents[2] / "configs"
TASK = Task(id="t", prompt="67 times 29?", answer="1943", tools=("multiply",), gold=ToolCall("multiply", {}))


def episode(*turns, finished="answer"):
    return Episode(task_id="t", source="s", policy="p", version=0, turns=turns, answer="", stop=finished)


def call(text, ids, tool="multiply", said="1943", status="ok"):
    return Turn(
        Completion(text=text, token_ids=ids),
        (ToolCall(tool, {"numbers": [67, 29]}),),
        (Observation(said, status=status),),
    )


def test_what_was_chosen_is_learned_and_what_was_read_is_not():
    attempt = episode(call(" is ", (5, 6)), Turn(Completion(text=".", token_ids=(8, 2))))
    got = decided(attempt, "ab", lambda text: [ord(c) for c in text], {"multiply": 3}, vocabulary=300, end=2)
    assert got.ids == (97, 98, 5, 6, *map(ord, "1943"), 8, 2)
    assert got.labels == (MASKED, 5, 6, 303, MASKED, MASKED, MASKED, MASKED, 2)


def test_a_call_without_a_result_is_learned_too_and_nothing_behind_a_failed_one():
    failed = episode(call("x", (5,), status="tool_error"), Turn(Completion(text="y", token_ids=(7,))))
    got = decided(failed, "a", lambda text: [ord(c) for c in text], {"multiply": 0}, vocabulary=300, end=2)
    assert (got.ids, got.labels) == ((97, 5, 2), (5, 300))


def test_figures_of_attempts():
    right = episode(call(" is ", ()), Turn(Completion(text=".")))
    wrong = episode(call(" is ", (), tool="add", said="96"))
    silent = episode(Turn(Completion(text=" it is 1943")))
    groups = [Group(TASK, (one,)) for one in (right, wrong, silent)]
    ratios = attempt_ratios(groups)
    assert list(ratios["tool"].parts) == [1, 0, 0]
    assert list(ratios["answer"].parts) == [1, 0, 1]
    assert list(ratios["call_rate"].parts) == [1, 1, 0]
    assert list(relation_ratios(groups)["accuracy"].parts) == [1, 0, 1]
    texts = [Marked("", (Span(0, 0, "add"),))] * 2 + [Marked("", (Span(0, 0, "multiply"),))]
    assert list(by_habit([TASK], texts).parts) == [0]
    assert right_answer(Task(id="w", prompt="", answer="Rome", aliases=("Roma",)), "It is Roma.") == 1


def test_a_small_run_learns_a_head_and_improves_it(tmp_path, monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("kamel")
    config = ToolkenGptConfig.model_validate(
        {
            "name": "small",
            "data": {"kind": "kamel", "relations": 30, "per_tool": 3},
            "template": "Question: [QUESTION]\nAnswer: The answer is",
            "model": {"kind": "tiny", "width": 16, "heads": 2, "vocab_size": 400, "max_length": 160},
            "language": {"steps": 3, "batch_size": 4},
            "head": {"epochs": 3, "lr": 0.1},
            "biases": [0.0, 20.0],
            "max_tokens": 4,
            "questions": 40,
            "feedback": {"rounds": 1, "tasks": 8, "attempts": 3, "fit": {"epochs": 1}},
        }
    )
    run = Run.start(tmp_path / "run", config_text="", resolved=config.model_dump(mode="json"), resume=False)
    summary = train(config, run, Progress())
    questions = summary["tests"]["questions"]
    assert {"start", "words", "final", "bm25", "habit", "change"} <= set(questions)
    assert questions["words"]["call_rate"]["value"] == 0
    head = ToolHead.load(tmp_path / "run" / "checkpoints" / "head")
    assert len(head.names) == 30 and summary["learned"]["head_bytes"] < 4000
    assert (tmp_path / "run" / "checkpoints" / "merged" / "config.json").is_file()
    tools = json.loads((tmp_path / "run" / "evaluation" / "tools.json").read_text())
    assert set(tools) == {*head.names, "all"}
    pooled = pool_kept([run.path, run.path], tmp_path / "pooled.json")["questions"]
    for state in ("start", "final", "bm25", "habit", "change"):
        assert pooled[state]["tool"]["value"] == questions[state]["tool"]["value"]
    assert tall(pooled).splitlines()[0].split() == ["start", "words", "final", "bm25", "habit", "change"]
    with pytest.raises(DataError, match="nowhere has no figures to be pooled"):
        pool_kept([tmp_path / "nowhere"], tmp_path / "pooled.json")
    again = train(config, run, Progress())
    assert again["tests"]["questions"]["start"] == questions["start"]


def test_with_shots_each_tool_is_shown_with_its_own_calls_and_answers_in_words_elsewhere(monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("funcqa")
    config = validate(read_yaml(CONFIGS / "toolkengpt" / "full.yaml"), ToolkenGptConfig, "full")
    data = config.data.load()
    shown = prompts(config, data, "<s>")
    assert shown.format.template.startswith("<s>") and "<add>" not in shown.format.template
    assert shown.format.template.count("\nA:") == 5
    assert shown.inline is not None and len(re.findall(r"<\w+>\(\d", shown.inline.template)) == 4
    assert shown.demonstrations is not None and set(shown.demonstrations) == set(data.tools)
    for tool, template in shown.demonstrations.items():
        assert re.findall(r"<(\w+)>\(", template) == [tool] * 4
        assert template.startswith("<s>Q: ") and template.endswith("\n\nQ: [QUESTION]\nA:")


def test_check_tells_of_the_texts_and_the_questions(monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("kamel")
    content = read_yaml(CONFIGS / "toolkengpt" / "kamel.yaml")
    told = list(stage_checks(validate(content, ToolkenGptConfig, "kamel")))
    assert told[0].startswith("texts      917 train with 917 results, 115 validation; 2 annotations")
    assert "questions  500 questions; 568 of training texts" in told
    assert told[-1].endswith("Tom will compete in «P2416: Soccer, Basketball, and Table Tennis».")
    content["data"]["relations"] = 234
    assert any(
        "no training text has 1 of the tools: P1344" in line
        for line in stage_checks(validate(content, ToolkenGptConfig, "kamel"))
    )


def test_plans_keep_to_their_grammar_and_their_scene(tmp_path, monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("virtualhome")
    content = read_yaml(CONFIGS / "toolkengpt" / "virtualhome.yaml")
    content["model"] |= {"width": 16, "heads": 2, "layers": 1}
    content |= {"language": {"steps": 1, "batch_size": 1}, "questions": 3, "max_calls": 9}
    content["head"] |= {"epochs": 2}
    config = validate(content, ToolkenGptConfig, "virtualhome")
    run = Run.start(tmp_path / "run", config_text="", resolved=config.model_dump(mode="json"), resume=False)
    plans = train(config, run, Progress())["tests"]["plans"]
    assert plans["start"]["grounded"]["value"] == 1.0 and plans["start"]["call_rate"]["value"] == 1.0
    assert plans["words"]["legal"]["value"] == 0.0
    groups = [json.loads(line) for line in (run.path / "evaluation" / "start-plans.jsonl").read_text().splitlines()]
    assert len(groups) == 3


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("tool[kg]*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_configs_are_valid(path):
    content = read_yaml(path)
    validate(content, ToolGenConfig if content["recipe"] == "toolgen" else ToolkenGptConfig, str(path))
