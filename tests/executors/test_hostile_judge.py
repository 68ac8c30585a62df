"""The corpus runner behind ``apprentice check --hostile``, on rows that harm nobody even where nothing is isolated."""

import json

import pytest
from typer.testing import CliRunner

from executors.catalog import Catalog
from executors.sandbox.posture import posture
from executors.sandbox.types import SandboxConfig, SandboxUnavailableError
from executors.tools.python import python_tool
from rl.cli import app

ROWS = [
    {"id": "calc-value", "tool": "calculator", "input": "7*6", "must": "ok", "why": "42"},
    {"id": "calc-wrong", "tool": "calculator", "input": "7*6", "must": "ok", "why": "41"},
    {"id": "calc-tower", "tool": "calculator", "input": "9**9**9**9", "must": "error"},
    {"id": "calc-code", "tool": "calculator", "input": "__import__('os')", "must": "blocked"},
    {"id": "json-good", "tool": "json_args", "input": '{"name":"add","arguments":{"a":1,"b":2}}', "must": "ok"},
    {"id": "json-bad", "tool": "json_args", "input": '{"name":"add","arguments":{"a":"1","b":2}}', "must": "error"},
    {"id": "http-private", "tool": "http", "input": '{"method": "GET", "url": "http://127.0.0.1/"}', "must": "blocked"},
    {"id": "strange", "tool": "telepathy", "input": "", "must": "ok"},
]


def check(tmp_path, rows, *options: str):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(app, ["check", "--hostile", str(path), *options])


def test_every_row_is_told_with_what_was_expected_and_what_came(tmp_path):
    done = check(tmp_path, ROWS, "--json")
    said = {row["id"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(said) == [row["id"] for row in ROWS]
    assert {id for id, row in said.items() if not row["passed"]} == {"calc-wrong", "strange"}
    assert (said["calc-tower"]["expected"], said["calc-tower"]["got"]) == ("error", "error")
    assert "no such tool" in said["strange"]["note"]
    assert done.exit_code == 1


def test_a_corpus_that_passes_ends_well_and_shows_a_table(tmp_path):
    done = check(tmp_path, [row for row in ROWS if row["id"] not in ("calc-wrong", "strange")])
    assert done.exit_code == 0
    assert "all: 6 of 6" in done.stdout
    assert done.stdout.startswith("sandbox  ")


@pytest.mark.skipif(posture().tier is None, reason="neither sandbox holds on this machine")
def test_programs_run_in_the_sandbox(tmp_path):
    rows = [
        {"id": "py-good", "tool": "python", "input": "print(sum(range(5)))", "must": "ok"},
        {"id": "py-bad", "tool": "python", "input": "1 / 0", "must": "error"},
        {"id": "py-slow", "tool": "python", "input": "while True: pass", "must": "timeout"},
        {"id": "py-read", "tool": "python", "input": "print(open('/etc/hostname').read())", "must": "blocked"},
    ]
    done = check(tmp_path, rows)
    assert done.exit_code == 0, done.stdout
    assert "python: 4 of 4" in done.stdout


def test_what_came_is_told_in_the_words_of_what_was_expected(tmp_path):
    rows = [row for row in ROWS if row["id"] not in ("calc-wrong", "strange")]
    rows += [{"id": "http-words", "tool": "http", "input": '{"url": "not a url"}', "must": "error"}]
    said = list(map(json.loads, check(tmp_path, rows, "--json").stdout.splitlines()))
    assert [row["got"] for row in said] == [row["expected"] for row in said]
    assert {row["id"]: row["status"] for row in said}["calc-value"] == "ok"
    (wrong,) = map(json.loads, check(tmp_path, ROWS[1:2], "--json").stdout.splitlines())
    assert (wrong["got"], wrong["passed"]) == ("failed", False)


def test_input_that_is_no_text_is_read_as_the_json_that_it_is(tmp_path):
    add = {"name": "add", "arguments": {"a": 1, "b": 2}}
    rows = [
        {"id": "object", "tool": "json_args", "input": add, "must": "ok"},
        {"id": "nothing", "tool": "json_args", "input": None, "must": "error"},
        {"id": "request", "tool": "http", "input": {"url": "http://api.allowed.test/ok"}, "must": "ok"},
        {"id": "number", "tool": "http", "input": 5, "must": "error"},
        {"id": "list", "tool": "calculator", "input": [1], "must": "error"},
    ]
    done = check(tmp_path, rows)
    assert done.exit_code == 0, done.stdout


def test_rows_of_one_id_are_judged_each_for_itself(tmp_path):
    rows = [{"id": "same", "tool": "calculator", "input": text, "must": "ok", "why": "2"} for text in ("1+1", "1+2")]
    said = map(json.loads, check(tmp_path, rows, "--json").stdout.splitlines())
    assert [row["passed"] for row in said] == [True, False]


def test_without_a_config_the_machine_is_checked():
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 0
    assert done.stdout.startswith("sandbox  ")


def test_a_corpus_that_cannot_be_read_is_a_data_error_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a"\n')
    done = CliRunner().invoke(app, ["check", "--hostile", str(path)])
    assert done.exit_code != 0
    assert "rows.jsonl:1" in str(done.exception)


def test_code_runs_unisolated_only_where_nothing_holds_and_it_was_asked_for(monkeypatch):
    monkeypatch.setattr("executors.sandbox.posture._against_namespaces", lambda bubblewrap: "forbidden")
    monkeypatch.setattr("executors.sandbox.posture._against_landlock", lambda abi: "absent")
    monkeypatch.delenv("APPRENTICE_UNSAFE_LOCAL_EXEC", raising=False)
    assert posture().tier is None
    with pytest.raises(SandboxUnavailableError, match="--unsafe-local-exec"):
        Catalog([python_tool(SandboxConfig(wall_s=1.5))]).require()
    monkeypatch.setenv("APPRENTICE_UNSAFE_LOCAL_EXEC", "1")
    assert posture().tier == "none"
    assert posture("ns").tier is None
