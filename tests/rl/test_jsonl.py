import json
from pathlib import Path

import pytest

from executors.catalog import Catalog
from executors.errors import DataError
from executors.executor import Executor
from executors.tools.calculator import calculator
from rl.data.tasks.jsonl import JsonLines, read_row, read_tasks


def written(tmp_path, *rows) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


GOOD = [{"prompt": f"What is {i} plus 1?", "answer": i + 1} for i in range(60)]


def test_rows_become_tasks_in_disjoint_splits(tmp_path):
    call = {"tool": "calculator", "arguments": {"expression": "2+2"}}
    extra = {"id": "x", "question": "2+2?", "answer": ["4", "four"], "call": call, "level": "easy"}
    benchmark = JsonLines(path=written(tmp_path, *GOOD, extra)).load(0)
    tasks = {task.id: task for task in (*benchmark.train, *benchmark.validation, *benchmark.test)}
    assert len(tasks) == 61
    assert len(benchmark.train) + len(benchmark.validation) + len(benchmark.test) == 61
    assert tasks["x"].aliases == ("four",)
    assert tasks["x"].gold.arguments == {"expression": "2+2"}
    assert tasks["row-1"].answer == "1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "2+2?"}, "no answer"),
        ({"answer": "4"}, "no prompt (it has answer)"),
        ("{broken", "row 61: "),
        ([1], "a row is an object, not a list"),
        ({"prompt": "?", "answer": "1", "call": {"tool": "calc", "arguments": {}}}, "closest: calculator"),
        (
            {"prompt": "?", "answer": "1", "call": {"tool": "calculator", "arguments": {"expr": "1"}}},
            'its call: Missing required parameters: "expression"',
        ),
        ({"prompt": "?", "answer": "1", "call": "calculator(1)"}, "a call reads"),
        ({"prompt": "?", "answer": [None, ""]}, "no answer"),
        ({"prompt": "?", "answer": True}, "an answer is a text or a number, not true"),
        ({"prompt": "?", "answer": ["1", {"value": 1}]}, 'an answer is a text or a number, not {"value": 1}'),
        ({"prompt": "?", "answer": "1", "id": "row-1"}, "stands on another row too"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_counted_never_silently_dropped(tmp_path, row, reason):
    path = written(tmp_path, *GOOD, row)
    with pytest.raises(DataError) as caught:
        JsonLines(path=path).load(0)
    assert "1 of 61 rows" in str(caught.value)
    assert reason in str(caught.value)
    benchmark = JsonLines(path=path, skip_bad_rows=True).load(0)
    assert len(benchmark.rejected) == 1
    assert reason in benchmark.rejected[0]


def test_answers_that_are_null_or_empty_are_none_and_numbers_are_texts(tmp_path):
    rows = [{"prompt": "half?", "answer": [None, 0.5, "", "a half"]}, {"prompt": "none?", "answer": 0}]
    half, none = read_tasks(Path(written(tmp_path, *rows)), Catalog([calculator]))[0]
    assert (half.answer, half.aliases) == ("0.5", ("a half",))
    assert none.answer == "0"


def test_rows_end_at_newlines_alone(tmp_path):
    row = json.dumps({"prompt": "one\u2028two\x85?", "answer": "3"}, ensure_ascii=False)
    tasks, rejected = read_tasks(Path(written(tmp_path, row, GOOD[0])), Catalog([calculator]))
    assert [task.prompt for task in tasks] == ["one\u2028two\x85?", GOOD[0]["prompt"]]
    assert not rejected


def test_a_missing_file_and_a_file_too_small_to_split_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        JsonLines(path=str(tmp_path / "none.jsonl")).load(0)
    with pytest.raises(DataError, match="none falls into"):
        JsonLines(path=written(tmp_path, GOOD[0])).load(0)


def test_labels_of_a_row_are_what_an_environment_is_reset_with():
    executor = Executor(Catalog([calculator]))
    task = read_row({"prompt": "x", "answer": 1, "labels": {"stock": 12}, "level": "hard"}, 1, executor)
    assert task.labels == {"stock": "12", "level": "hard"}
    for wrong in ([1], {"stock": [12]}):
        with pytest.raises(ValueError, match="labels are names"):
            read_row({"prompt": "x", "answer": 1, "labels": wrong}, 1, executor)


def test_a_reason_that_many_rows_share_is_told_once(tmp_path):
    rows = [{"prompt": "x", "anwser": 1}] * 5 + [{"answer": 2}]
    with pytest.raises(DataError) as caught:
        JsonLines(path=written(tmp_path, *rows)).load(0)
    assert "6 of 6 rows" in str(caught.value) and "row 1 and 4 more: no answer; row 6: no prompt" in str(caught.value)
