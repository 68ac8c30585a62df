"""STE's evaluation: the published flags item by item, the published table, and files of every odd sort."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from executors.errors import DataError
from rl.cli import app
from rl.data.tasks.benchmark import data_folder
from rl.evaluation.suites.command import SteOptions
from rl.evaluation.suites.ste import (
    Flags,
    SteSetting,
    by_api,
    by_batch,
    compare,
    read_replies,
    score,
    totals,
    without_suspects,
)
from rl.evaluation.suites.ste_golds import EDITED, JUDGED, SUSPECT, digest
from rl.evaluation.suites.ste_labels import CachedJudge, ModelJudge, StrictJudge, judge_prompt
from rl.evaluation.suites.ste_predictions import Predictions, read_predictions

# n, no_call, err; Wellformed, API match, Correct as published; Correct by released golds; by the string rule alone.
TABLE = {
    "toolLLMv2": (750, 0, 14, 98.133, 49.049, 37.333, 37.733, 33.6),
    "llama-7Bf": (750, 0, 491, 34.533, 40.154, 10.667, 10.933, 10.267),
    "llama-13Bf": (750, 0, 155, 79.333, 53.613, 32.667, 32.8, 32.133),
    "mistral": (750, 0, 287, 61.733, 69.33, 30.133, 30.4, 27.6),
    "mistral_FT": (750, 0, 7, 99.067, 95.828, 76.8, 78.0, 73.467),
    "CL_round_0": (180, 0, 1, 99.444, 98.883, 80.556, 82.778, 81.111),
    "CL_round_1": (375, 0, 4, 98.933, 95.957, 80.267, 82.4, 81.333),
}
# Wellformed, API match and strict Correct with the fair parser; the first takes long and reads as published.
FAIR = {
    "toolLLMv2": (98.13, 49.05, 33.60),
    "llama-7Bf": (80.93, 39.37, 24.80),
    "llama-13Bf": (78.67, 53.90, 32.00),
    "mistral": (93.07, 69.05, 44.93),
    "mistral_FT": (99.07, 95.83, 73.47),
    "CL_round_0": (99.44, 98.88, 81.11),
    "CL_round_1": (98.93, 95.96, 81.33),
}
PUBLISHED = SteSetting()
NAMES = ("add_date", "get_today_date", "search_general")


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return data_folder("ste")
    except DataError as error:
        pytest.skip(str(error))


def read(folder: Path, name: str) -> Predictions:
    return read_predictions(folder / "saved_results" / f"{name}.json")


@cache
def replies(folder: Path, name: str) -> list[Flags]:
    """A published file as the published parser reads it; once, as the nearest of many names takes its time."""
    return read_replies(read(folder, name), PUBLISHED)


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def row(output: Any, api: str = "add_date", gold: Any = '{"days": 90}', **more: Any) -> dict[str, Any]:
    return {"query": "when?", "action": api, "action_input": gold, "model_output": output, **more}


def flag(tmp_path: Path, output: str, setting: SteSetting = PUBLISHED, **more: Any) -> Flags:
    """How one reply is flagged, among three APIs."""
    content = {name: [] for name in NAMES} | {"add_date": [row(output, **more)]}
    return score(read_predictions(written(tmp_path / "p.json", content)), setting, CachedJudge({}))[0]


def call(arguments: str, name: str = "add_date") -> str:
    return f"Action: {name}\nAction Input: {arguments}"


@pytest.mark.parametrize("name", TABLE)
def test_every_published_flag_comes_out_item_by_item(folder, name):
    rows = [
        one for rows in json.loads((folder / "saved_results" / f"{name}.json").read_bytes()).values() for one in rows
    ]
    flags = compare(replies(folder, name), PUBLISHED, CachedJudge({}))
    assert len(flags) == len(rows)
    for key in ("no_call", "err", "api_match", "args_correct"):
        ours = [int(getattr(one, key)) for one in flags]
        assert [place for place, one in enumerate(rows) if one.get(key, 0) != ours[place]] == [], key


@pytest.mark.parametrize("name", TABLE)
def test_the_published_table_comes_out_to_three_decimals(folder, name):
    read = replies(folder, name)
    released_golds = replace(PUBLISHED, edited_golds=False)
    published = totals(compare(read, PUBLISHED, CachedJudge({})))
    released = totals(compare(read, released_golds, CachedJudge({})))
    strict = totals(compare(read, released_golds, StrictJudge()))
    found = [published[key] for key in ("n", "no_call", "err", "wellformed", "api_match_rate", "correct")]
    assert [round(value, 3) for value in (*found, released["correct"], strict["correct"])] == list(TABLE[name])


@pytest.mark.parametrize("name", list(FAIR)[1:])
def test_the_fair_parser_gives_the_known_figures(folder, name):
    setting = replace(PUBLISHED, parser="fair", edited_golds=False)
    found = totals(score(read(folder, name), setting, StrictJudge()))
    assert [round(found[key], 2) for key in ("wellformed", "api_match_rate", "correct")] == list(FAIR[name])


def test_continual_learning_is_told_by_batch_and_api(folder):
    flags = score(read(folder, "CL_round_1"), PUBLISHED, CachedJudge({}))
    batches = by_batch(flags, json.loads((folder / "CL_batches.json").read_bytes()))
    assert {name: round(one["correct"], 3) for name, one in batches.items()} == {"0": 76.111, "1": 84.103}
    apis = by_api(flags)
    assert len(apis) == 25
    assert sum(one["args_correct"] for one in apis.values()) == totals(flags)["args_correct"] == 301


def test_labels_given_elsewhere_are_found_by_the_same_call(folder):
    """Without its own labels a file gets most of them from the others, and the rest is left to the string rule."""
    predictions = read(folder, "CL_round_1")
    bare = replace(predictions, items=tuple(replace(item, label=None) for item in predictions.items))
    judge = SteOptions().build_judge()
    found = totals(score(bare, PUBLISHED, judge))
    assert judge.counts["elsewhere"] == 92  # the file itself is among the published ones
    assert found["correct"] == pytest.approx(80.267, abs=1e-3)
    alone = CachedJudge({})
    assert totals(score(bare, PUBLISHED, alone))["args_correct"] < found["args_correct"]
    assert alone.counts == {"unknown": 92}


def test_there_are_19_judged_apis_and_27_suspect_golds(folder):
    rows = json.loads((folder / "tool_test.json").read_bytes())
    known = {(api, digest(one["query"])) for api, items in rows.items() for one in items}
    assert (len(JUDGED), len(EDITED), len(SUSPECT)) == (19, 11, 27)
    assert known >= SUSPECT and rows.keys() >= JUDGED and not {api for api, _ in EDITED} & JUDGED
    flags = score(read(folder, "mistral_FT"), PUBLISHED, CachedJudge({}))
    assert without_suspects(flags)["n"] == 750 - 27


def test_gold_calls_pass_their_own_evaluation(folder, tmp_path):
    rows = json.loads((folder / "tool_test.json").read_bytes())
    for items in rows.values():
        for one in items:
            one["model_output"] = call(one["action_input"], one["action"])
    predictions = read_predictions(written(tmp_path / "gold.json", rows))
    strict = totals(score(predictions, replace(PUBLISHED, edited_golds=False), StrictJudge()))
    assert (strict["n"], strict["args_correct"]) == (750, 750)


GOLDEN: Sequence[tuple[str, str, str]] = [
    (call('{"date":"2022-10-14","days":90}'), "call", "call"),
    (call('{"date":"2022-10-14","days":90}', "<tool_add_date>"), "call", "call"),
    ('Action: <tool_add_date> Action Input: {"date":"2022-10-14","days":90}', "call", "call"),
    (call("{}", "adddate"), "call", "call"),
    (call('{"a":1}') + "\nFinal Answer: 3", "call", "call"),
    ("Final Answer: x\nAction: add_date", "no_call", "no_call"),
    (call('{"a":1}\nObservation: {"r":2}'), "err", "call"),
    (call('{"a":1,\n}'), "err", "call"),
    (call('{"a":{"b":1}}'), "err", "call"),
    (call('{"a":1}\nAction Input: {"a":2}'), "err", "call"),
    ('Action Input: {"a":1}', "err", "err"),
    (call("90 days"), "err", "err"),
    (call('{"date":"2022-10-14", "da'), "err", "err"),
    ("", "err", "err"),
]


@pytest.mark.parametrize(("output", "paper", "fair"), GOLDEN)
def test_golden_replies_are_read_as_they_should_be(tmp_path, output, paper, fair):
    for parser, verdict in (("paper", paper), ("fair", fair)):
        found = flag(tmp_path, output, replace(PUBLISHED, parser=parser))
        assert (found.no_call, found.err, found.wellformed) == (
            verdict == "no_call",
            verdict == "err",
            verdict == "call",
        )
        assert found.api_match == (verdict == "call")


def test_without_grounding_an_unknown_name_is_an_error_or_a_wrong_tool(tmp_path):
    paper = flag(tmp_path, call("{}", "adddate"), SteSetting(ground=False))
    fair = flag(tmp_path, call("{}", "adddate"), SteSetting(parser="fair", ground=False))
    assert paper.err and not paper.wellformed
    assert fair.wellformed and not fair.api_match


def test_extra_arguments_pass_unless_they_are_rejected(tmp_path):
    output = call('{"days": "90", "why": "x"}')
    assert flag(tmp_path, output).args_correct
    assert not flag(tmp_path, output, SteSetting(extra_keys="reject")).args_correct


def test_what_was_parsed_when_it_was_written_is_taken_as_it_is(tmp_path):
    """Published answers of endpoint models carry ``parsed_result``; their names are not grounded."""
    stored = {"parse_successful": True, "finish": False, "action": "adddate", "action_input": '{"days": 90}'}
    assert not flag(tmp_path, "", parsed_result=stored).api_match
    assert flag(tmp_path, "", parsed_result={**stored, "action": "add_date"}).args_correct
    assert flag(tmp_path, "", parsed_result={**stored, "finish": True}).no_call
    assert flag(tmp_path, "", parsed_result={**stored, "parse_successful": False}).err
    assert flag(tmp_path, "", parsed_result={**stored, "action_input": "{"}).err


def test_odd_rows_are_counted_and_noted(tmp_path):
    content = {
        "add_date": [row(None), row(call('{"days": 90}')), "text", row(call('{"days": 90}'), gold="{")],
        "search_general": [{"query": "q", "model_output": call("{}", "search_general"), "action_input": {}}],
        "get_today_date": [],
    }
    predictions = read_predictions(written(tmp_path / "p.json", content))
    found = totals(score(predictions, PUBLISHED, CachedJudge({})))
    assert [found[key] for key in ("n", "err", "api_match", "args_correct")] == [4, 1, 3, 2]
    assert [note.partition(":")[0] for note in predictions.notes] == ["add_date 0", "add_date 2", "add_date 3"]


def test_a_list_of_items_names_its_apis(tmp_path):
    rows = [row(call('{"days": 90}')), row(call("{}", "search"), api="search", gold="{}")]
    predictions = read_predictions(written(tmp_path / "p.json", rows))
    assert predictions.apis == ("add_date", "search")
    assert totals(score(predictions, PUBLISHED, StrictJudge()))["args_correct"] == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text", "not JSON"),
        ("3", "holds a JSON int"),
        ("{}", "no prediction"),
        ('{"a": 1}', "where its list of items should be"),
        ('{"a": ["x"]}', "no prediction that could be scored, such as: a 0: a str is no item"),
        ('[{"query": "q"}]', "names no API"),
        ('{"a": [{"query": "q", "action_input": "{}"}]}', "no answer to any of them"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, content, words):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_predictions(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "none.json")


def test_a_model_judges_each_pair_once_and_its_words_are_kept(tmp_path):
    asked: list[str] = []

    async def model(messages: Sequence[Any], **options: Any) -> str:
        assert options["temperature"] == 0
        asked.append(messages[0]["content"])
        await asyncio.sleep(0)
        return "No. The city is missing." if "Paris" in messages[0]["content"] else "Yes. They mean the same."

    gold = '{"query": "hotels in Rome"}'
    rows = [
        row(call(f'{{"query": "{text}"}}', "search_general"), "search_general", gold)
        for text in ("Rome", "Paris", "Rome")
    ]
    predictions = read_predictions(written(tmp_path / "p.json", {"search_general": rows}))
    first = ModelJudge(model, tmp_path / "kept.jsonl")
    assert [one.args_correct for one in score(predictions, PUBLISHED, first)] == [True, False, True]
    assert len(asked) == 2
    assert asked[0] == judge_prompt("search_general", {"query": "hotels in Rome"}, {"query": "Rome"})
    again = ModelJudge(model, tmp_path / "kept.jsonl")
    assert [one.args_correct for one in score(predictions, PUBLISHED, again)] == [True, False, True]
    assert (len(asked), again.counts["kept"], again.counts["asked"]) == (2, 3, 0)


def test_the_command_prints_eight_figures(folder, tmp_path):
    file, out = folder / "saved_results" / "CL_round_0.json", tmp_path / "all.json"
    done = CliRunner().invoke(
        app, ["evaluate", "--suite", "ste", "--predictions", str(file), "--json", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert list(printed) == [
        "n",
        "no_call",
        "err",
        "api_match",
        "args_correct",
        "wellformed",
        "api_match_rate",
        "correct",
    ]
    assert round(printed["correct"], 3) == 80.556
    full = json.loads(out.read_text())
    assert full["totals"] == printed and len(full["apis"]) == 12 and full["batches"]["0"]["n"] == 180
    strict = ["--set", "judge=strict", "--set", "edited_golds=false", "--json"]
    other = CliRunner().invoke(app, ["evaluate", "--suite", "ste", "--predictions", str(file), *strict])
    assert round(json.loads(other.stdout)["correct"], 3) == 81.111
