"""ToolAlpaca's evaluation: the published figures recounted, every prompt read back, the rule judge's agreement."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from executors.errors import DataError
from rl.cli import app
from rl.data.tasks.benchmark import data_folder
from rl.evaluation.suites.toolalpaca import JudgedFile, agreement, read_judged, recount, report
from rl.evaluation.suites.toolalpaca_prompts import read_prompt

PROMPT = """Judge this.
## Analysis
...
## Results

## Documentation
search: Find things.
Parameters: {"query": "Required. string. What to find.", "page": "integer. Which page."}
Output: Things.

## Task Instruction
Find the axolotl.

## Standard Answer
1. Function: search
Parameters: {"query": "axolotl", "page": 1}
2. Function: [Optional]show
Parameters: {"id": ${id from search}}


## AI Assistant's Solution
1. Function: search
Parameters: {"query": "Axolotl"}
Retruns: Status Code: 200. Response: {"list": "
3. Function: none
"}
2. Final Response: Here it is:
1. Function: no call

## Analysis"""
OUTPUT = "## Results \nProcess Correctness: {} \nFinal Response Correctness: {}"


@pytest.fixture(scope="module")
def published() -> JudgedFile:
    try:
        return read_judged(data_folder("toolalpaca") / "judged_ToolAlpaca7b.json")
    except DataError as error:
        pytest.skip(str(error))


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def row(process: str, response: str, prompt: str = PROMPT) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": prompt}], "output": OUTPUT.format(process, response)}


def test_the_published_figures_are_recounted_exactly(published):
    assert recount(published) == {"procedure": 63.0, "response": 68.0, "overall": 60.0, "errors": 1, "n": 100}
    assert published.notes == ()  # the file's own statistics and its noted verdicts say the same


def test_every_judge_prompt_is_read_back(published):
    prompts = [one.prompt for one in published.rows if one.prompt is not None]
    assert len(prompts) == 99
    assert sum(len(prompt.solution) for prompt in prompts) == 151
    for prompt in prompts:
        assert prompt.instruction and prompt.gold and prompt.response
        assert all(step.arguments is not None for step in (*prompt.gold, *prompt.solution))
        assert {step.tool for step in (*prompt.gold, *prompt.solution)} <= {*prompt.functions, "getDetails"}
        assert len(prompt.returned) == len(prompt.solution) and all(prompt.returned)


def test_the_rule_agrees_with_the_judge_as_it_did_when_it_was_written(published):
    """Yes-counts as they were measured before; none of the four levels stands out."""
    found = [agreement(published, level) for level in ("names", "required", "mentioned", "all")]
    assert [one.yes for one in found] == [69, 66, 61, 52]
    assert [round(one.agreement, 3) for one in found] == [0.879, 0.869, 0.859, 0.808]
    assert [round(one.kappa, 3) for one in found] == [0.728, 0.711, 0.698, 0.611]


def test_a_prompt_falls_into_its_parts():
    prompt = read_prompt(PROMPT)
    assert prompt.instruction == "Find the axolotl."
    assert [(step.tool, step.arguments, step.optional) for step in prompt.gold] == [
        ("search", {"query": "axolotl", "page": 1}, False),
        ("show", {"id": "${}"}, True),
    ]
    assert [(step.tool, step.arguments) for step in prompt.solution] == [("search", {"query": "Axolotl"})]
    assert prompt.returned == ('Status Code: 200. Response: {"list": "\n3. Function: none\n"}',)
    assert prompt.response == "Here it is:\n1. Function: no call"
    assert prompt.required == {"search": ("query",)}
    with pytest.raises(ValueError, match="no '## Standard Answer'"):
        read_prompt(PROMPT.replace("## Standard Answer", "## Answer"))


def test_levels_ask_for_more_and_more_arguments(tmp_path):
    judged = read_judged(written(tmp_path / "j.json", [row("Yes", "Yes")]))
    yes = [agreement(judged, level).yes for level in ("names", "required", "mentioned", "all")]
    assert yes == [1, 1, 1, 0]  # the page is neither required nor mentioned, and was left out


def test_odd_rows_are_counted_and_noted(tmp_path):
    rows = [
        row("Yes", "Uncertain"),
        row("Perhaps", "Yes"),
        {"input": "", "output": ""},
        "text",
        {"input": PROMPT, "output": None, "process_correctness": "Yes", "final_response_correctness": "Yes"},
        row("Yes", "Yes", prompt="no prompt of this kind"),
    ]
    statistics = {"num": 7, "process": {"Yes": 4}, "both": 2}
    judged = read_judged(written(tmp_path / "j.json", {"Api": rows, "statistics": statistics}))
    assert recount(judged) == pytest.approx(
        {"procedure": 50.0, "response": 50.0, "overall": 100 / 3, "errors": 2, "n": 6}
    )
    told = " ".join(judged.notes)
    for words in (
        "Api 1: the judge gave no verdict",
        "Api 3: a str is no row",
        "Api 5: the prompt has no",
        "say 7 for num",
    ):
        assert words in told
    assert agreement(judged, "names").n == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text", "not JSON"),
        ("3", "holds a JSON int"),
        ("{}", "no judged attempt"),
        ('{"Api": 1}', "list of rows"),
        ('[{"Name": "Tides", "Instructions": ["When is high water?"]}]', "no judged attempt"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, content, words):
    path = tmp_path / "j.json"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_judged(path)


def test_a_mark_of_the_encoding_at_the_beginning_of_a_file_is_no_matter(tmp_path):
    path = written(tmp_path / "j.json", [row("Yes", "Yes")])
    path.write_text("\ufeff" + path.read_text())
    assert recount(read_judged(path))["overall"] == 100


def test_a_file_without_prompts_has_figures_and_no_agreement(tmp_path):
    rows = [{"input": "", "process_correctness": "Yes", "final_response_correctness": "No"}]
    found = report(read_judged(written(tmp_path / "j.json", rows)))
    assert (found["procedure"], found["errors"], found["agreement"], found["levels"]["all"]["n"]) == (100.0, 1, 0.0, 0)


def test_the_command_prints_one_object(published):
    file = str(data_folder("toolalpaca") / "judged_ToolAlpaca7b.json")
    done = CliRunner().invoke(app, ["evaluate", "--suite", "toolalpaca", "--judged", file, "--json"])
    printed = json.loads(done.stdout)
    assert [printed[key] for key in ("procedure", "response", "overall", "errors", "n")] == [63, 68, 60, 1, 100]
    assert printed["levels"].keys() == {"names", "required", "mentioned", "all"}
    assert printed["agreement"] == printed["levels"]["mentioned"]["agreement"]
