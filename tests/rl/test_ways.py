"""Trees of ToolBench's in and out: which ways are learned from, ranked attempts of them, and files by the command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from executors.errors import ConfigError
from executors.types import ToolCall
from rl.cli import app
from rl.data.exports import SEARCHED, export
from rl.data.imports import import_rows
from rl.data.ranked import FEATURES
from rl.data.recorded import recorded_search
from rl.data.tables import write_rows
from rl.data.tasks.ranked import RankedFile
from rl.data.toolgen import read_seed, read_sharegpt
from rl.data.trees import searched_of
from rl.data.ways import CLEAN, Kept, kept_ways
from rollouts.formats.react import ReactFormat
from tests.rl.recorded_groups import INLINE, records
from tests.rl.test_trees import chain, record, tree

FORMAT = ReactFormat()


def way(code: int, answer: str) -> dict:
    """A search that calls once and answers."""
    given = json.dumps({"return_type": "give_answer", "final_answer": answer})
    ended = record("Action", "Finish", 3, [record("Action Input", given, 4, [], "{}", 3)])
    return record("Action", "weather", 1, [record("Action Input", "{}", 2, [ended], "seen", code)])


def search(*ways: dict):
    whole = tree()
    whole["tree"]["tree"]["children"] = list(ways)
    return searched_of(whole, "DFS_woFilter_w2")


@pytest.mark.parametrize(
    ("kept", "count"),
    [
        (Kept(), 1),
        (Kept(every=True), 4),
        (Kept(every=True, invented=False), 3),
        (Kept(every=True, failures=0.5), 2),
        (Kept(every=True, excuses=False), 3),
        (CLEAN, 1),
    ],
)
def test_ways_are_kept_by_what_went_wrong_in_them(kept, count):
    one = search(way(0, "Rain."), way(1, "Rain."), way(11, "Sun."), way(0, "I'm sorry, I do not know."))
    assert len(kept_ways(one, kept)) == count
    assert not kept_ways(searched_of(chain(), "CoT@2"), Kept(every=True))


def test_a_tree_is_ranked_attempts_whose_replies_are_read_as_they_were_made():
    row = recorded_search(searched_of(tree(), "DFS_woFilter_w2"), "7")
    best, other = row["candidates"]
    assert [(one["source"], one["score"], one["status"]) for one in (best, other)] == [
        ("way_1", 1.0, "ok"),
        ("way_2", 0.0, "error"),
    ]
    (call,) = FORMAT.parse(best["replies"][0], [])
    assert call == ToolCall("weather", {"city": "Oslo"})
    assert best["replies"][1] == "Thought: It rains.\nFinal Answer: Rain."
    assert FORMAT.answer(best["replies"][1]) == row["task"]["answer"] == "Rain."
    assert [message["role"] for message in best["messages"]] == ["assistant", "tool", "assistant"]
    assert FORMAT.answer(other["replies"][-1]) == ""
    assert [tool["function"]["name"] for tool in row["tools"]] == ["weather"]
    half = recorded_search(search(way(11, "Sun.")), "8")
    assert half["candidates"][0]["score"] == 0.5
    with pytest.raises(ValueError, match="nothing was tried"):
        recorded_search(search(), "9")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "trees"
    folder.mkdir()
    for number in range(12):
        whole = tree()
        whole["answer_generation"]["query"] = f"Rain {number}?"
        (folder / f"{number}_DFS_woFilter_w2.json").write_text(json.dumps(whole))
    return folder


def test_trees_are_imported_as_tasks_that_a_run_learns_from(folder, tmp_path):
    imported = import_rows(folder, "toolbench")
    write_rows(tmp_path / "ranked.jsonl", imported.rows, FEATURES)
    loaded = RankedFile(path=str(tmp_path / "ranked.jsonl")).load(0)
    assert loaded.catalog.names == ("weather",) and set(loaded.recordings) >= {"way_1", "way_2", "gold"}
    (folder / "12_CoT@1.json").write_text(json.dumps(tree() | {"tree": {"tree": {"children": []}}}))
    assert import_rows(folder, "toolbench", skip_bad_rows=True).rejected == ["query 12: nothing was tried"]


def run(*arguments) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_the_command_writes_what_toolgen_and_toolbench_read(folder, tmp_path):
    told = run("export", folder, "agent", tmp_path / "agent_tuning.json")
    assert "12 rows of 12 groups" in told
    assert len(read_seed(tmp_path, "agent")) == 12
    run("export", folder / "3_DFS_woFilter_w2.json", "sharegpt", tmp_path / "sharegpt-agent.json")
    assert len(read_sharegpt(tmp_path / "sharegpt-agent.json")) == 1
    run("export", folder, "answers", tmp_path / "answers.json")
    assert json.loads((tmp_path / "answers.json").read_text())["3"]["query"] == "Rain 3?"
    (folder / "12_CoT@1.json").write_text(json.dumps(chain()))
    assert "1 groups left out: no way that is learned from" in run(
        "export", folder, "agent", tmp_path / "agent.json", "--clean"
    )
    with pytest.raises(ConfigError, match=r"ends in \.json"):
        run("export", folder, "agent", tmp_path / "agent.jsonl")
    told = run("import", "toolbench", folder, tmp_path / "ranked.jsonl")
    assert "13 tasks in" in told and "way_1 (13), way_2 (12)" in told


def test_best_attempts_of_a_run_are_exported_as_chains(tmp_path):
    groups = records()
    for form in SEARCHED:
        export(groups, INLINE, form, tmp_path / f"{form}.json")
    answers = json.loads((tmp_path / "answers.json").read_text())
    ids = {group.group.task.id for group in groups if group.group.candidates}
    assert answers.keys() == ids
    assert all(one["answer"]["method"] == "CoT@1" for one in answers.values())
    rows = json.loads((tmp_path / "agent.json").read_text())
    assert rows and all(row["final_answer"] for row in rows)
    assert any(row["plan_sequence"] for row in rows)
