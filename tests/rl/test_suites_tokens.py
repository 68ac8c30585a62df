"""``evaluate --suite funcqa`` and ``retrieval``: files of what others answered and found."""

import json
import os
from pathlib import Path

import pytest

from executors.errors import ConfigError, DataError
from rl.data.tasks.funcqa import FuncQa
from rl.evaluation.suites import funcqa, retrieval
from rl.evaluation.suites.command import evaluate_suite
from rl.evaluation.suites.funcqa import FuncQaOptions
from rl.evaluation.suites.retrieval import RetrievalOptions

DATA = Path(os.environ.get("APPRENTICE_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_funcqa = pytest.mark.skipif(not (DATA / "funcqa").is_dir(), reason="data/funcqa is not here")
needs_toolbench = pytest.mark.skipif(not (DATA / "stabletoolbench").is_dir(), reason="data/stabletoolbench is not here")


def written(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@needs_funcqa
def test_gold_answers_score_full_marks_and_an_empty_log_none(tmp_path):
    for questions, marker in (("one_hop", "So, the answer is "), ("multi_hop", "\\n#### ")):
        tasks = FuncQa().load().tests[questions]
        rows = [
            {
                "case_idx": n,
                "question": task.prompt,
                "func_calls": [f"<{task.gold.tool}>(1, 2) = 3"] if task.gold else [],
                "generation": f"Thinking.{marker}{task.answer}.",
                "status": "success",
            }
            for n, task in enumerate(tasks)
        ]
        full = funcqa.score(written(tmp_path / "log.jsonl", rows), FuncQaOptions(questions=questions))
        assert (full["n"], full["em"], full["approx"], full["failed"], full["notes"]) == (len(tasks), 1, 1, 0, [])
        if questions == "one_hop":
            assert (full["first_tool"], full["called"]) == (1, 1)
    nothing = funcqa.score(written(tmp_path / "log.jsonl", []), FuncQaOptions())
    assert (nothing["answered"], nothing["em"], nothing["failed"]) == (0, 0, 1)
    assert "60 of 60 questions have no line" in nothing["notes"][0]


@needs_funcqa
def test_a_log_of_other_questions_is_refused_and_a_failed_case_counts(tmp_path):
    (task, other, *_) = FuncQa().load().tests["one_hop"]
    row = {"case_idx": 0, "question": other.prompt, "func_calls": [], "generation": "", "status": "success"}
    with pytest.raises(DataError, match=r"log\.jsonl:1: question 0 is another one here"):
        funcqa.score(written(tmp_path / "log.jsonl", [row]), FuncQaOptions())
    with pytest.raises(DataError, match="case_idx is 60 and there are questions 0 to 59"):
        funcqa.score(written(tmp_path / "log.jsonl", [{"case_idx": 60}]), FuncQaOptions())
    failed = row | {"question": task.prompt, "status": "ZeroDivisionError", "func_calls": ["<nonsense>(1) = 1"]}
    full = funcqa.score(written(tmp_path / "log.jsonl", [failed, failed]), FuncQaOptions())
    assert (full["failed"], full["first_tool"], full["answered"]) == (1, 0, 1)
    assert "question 0 again" in full["notes"][0]


def test_lists_are_measured_against_own_golds_in_any_form_of_a_name(tmp_path, capsys):
    golds = written(
        tmp_path / "golds.jsonl",
        [{"query_id": 1, "tools": [["a", "x"], ["a", "y"]]}, {"query_id": "2", "tools": ["plain"]}],
    )
    found = written(
        tmp_path / "found.jsonl",
        [{"query_id": 1, "tools": ["<<a&&x>>", "other", ["a", "y"]]}, {"query_id": 2, "tools": ["no", "plain"]}],
    )
    full = retrieval.score(found, RetrievalOptions(golds=str(golds), depths=[1, 3]))
    assert full["mrr"] == 0.75
    assert full["selected"] == 0.5
    assert full["recall@1"] == pytest.approx(1 / 3, abs=1e-4)
    assert full["recall@3"] == full["complete@3"] == 1
    evaluate_suite("retrieval", found, None, [f"golds={golds}"], as_json=True, out=tmp_path / "all.json")
    assert json.loads(capsys.readouterr().out)["mrr"] == 0.75
    assert json.loads((tmp_path / "all.json").read_text())["intervals"]["mrr"]["low"] == 0.5


def test_what_cannot_be_measured_names_its_line(tmp_path):
    golds = written(tmp_path / "golds.jsonl", [{"query_id": 1, "tools": ["a"]}])
    options = RetrievalOptions(golds=str(golds))
    for row, said in (
        ({"query_id": 9, "tools": []}, "there is no query 9"),
        ({"query_id": 1}, "a line reads"),
        ({"query_id": 1, "tools": [3]}, "a tool is a name or"),
    ):
        with pytest.raises(DataError, match=rf"found\.jsonl:1: {said}"):
            retrieval.score(written(tmp_path / "found.jsonl", [row]), options)
    empty = written(tmp_path / "empty.jsonl", [{"query_id": 1, "tools": []}])
    with pytest.raises(DataError, match="wants no tool at all"):
        retrieval.score(golds, RetrievalOptions(golds=str(empty)))
    with pytest.raises(ConfigError, match="there are ste, toolalpaca, bfcl, toolbench, funcqa, toolkengpt, retrieval"):
        evaluate_suite("funkqa", None, None, [], as_json=False, out=None)


@needs_toolbench
def test_toolbenchs_queries_are_the_default_and_their_own_tools_are_perfect(tmp_path):
    rows = json.loads((DATA / "stabletoolbench" / "G1_instruction.json").read_text())
    found = [{"query_id": row["query_id"], "tools": row["relevant APIs"]} for row in rows]
    full = retrieval.score(written(tmp_path / "found.jsonl", found), RetrievalOptions(among=["G1_instruction"]))
    assert (full["n"], full["answered"], full["ndcg@5"], full["mrr"]) == (len(rows), len(rows), 1, 1)
    with pytest.raises(DataError, match=r"has no G9\.json"):
        retrieval.score(tmp_path / "found.jsonl", RetrievalOptions(among=["G9"]))
    every = retrieval.score(tmp_path / "found.jsonl", RetrievalOptions())
    assert every["n"] > every["answered"] == len(rows)
