"""Imports: RRHF's, TRICE's and ToolAlpaca's files as ranked tasks that a run can learn from."""

import asyncio
import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.types import MalformedCall, Observation, ToolCall
from rewards.ranking import Recorded, TriceLadder, WeightedSum, level_counts
from rewards.types import RankedGroup, Reward
from rl.cli import app
from rl.config import validate
from rl.data.conversations import conversation
from rl.data.examples import Encoder
from rl.data.exports import export
from rl.data.imports import import_rows
from rl.data.ranked import FEATURES
from rl.data.rows import read_rows
from rl.data.tables import write_rows
from rl.data.tasks.benchmark import Benchmark
from rl.data.tasks.ranked import RankedFile
from rl.data.toolalpaca import Instance, read_instances, record, write_instances
from rl.evaluation.ranking import rank_ratios
from rl.learner.learner import Learner, Stage
from rl.learner.optimiser import OptimiserConfig
from rl.losses.objective import Rrhf
from rl.models.tiny import build_model, build_tokenizer
from rl.recipes.trained import check_config
from rl.recipes.trice import TriceConfig
from rl.serving.policies import RecordedPolicy
from rollouts.formats import Format
from rollouts.formats.inline import InlineFormat
from rollouts.formats.toolalpaca import ToolAlpacaFormat
from rollouts.policy import Source
from rollouts.types import Group, Task
from rollouts.worker import RolloutWorker, WorkerConfig
from tests.rl.recorded_groups import INLINE, records, task

WORDS = ("red", "green", "blue", "white", "black")


def rrhf(number: int, count: int = 3) -> dict:
    """A question of RRHF's kind: the right word, another one, and no word at all."""
    word = WORDS[number % len(WORDS)]
    responses = [f"It is {WORDS[(number + 1) % len(WORDS)]}.", f"It is {word}.", "I do not know."]
    return {
        "query": f"Human: Thing {number} is {word}. What colour is thing {number}?\n\nAssistant:",
        "responses": responses[:count],
        "scores": [-1.5, 2.25, -3.0][:count],
    }


def trice(number: int = 0) -> dict:
    return {
        "query": f"Given a math problem, please answer it and you can use a calculator for help.\nWhat is {number}+4?",
        "responses": [
            f"calculator({number}+4)",
            f"So calculator({number}*4) then",
            "The answer is 54.",
            "calculator(1/0)",
        ],
        "origin": ["gold", "chatgpt", "vicuna", "alpaca"],
        "scores": [20, 20, 15, 0],
        "answer": [f"{number + 4}.0", f"{number * 4}.0", "54.0", None],
    }


STEP = [
    "searchPets",
    '{"kind": "cat",  "page": 1}',
    ' I look for cats.\nASSISTANT Action: searchPets\nASSISTANT Action Input: {"kind": "cat",  "page": 1}',
]
REFUSED = ["searchPets", "{kind: cat}", " Hm.\nASSISTANT Action: searchPets\nASSISTANT Action Input: {kind: cat}"]
INSTANCE = {
    "input": "Which cats are there?\nHint: use searchPets",
    "output": "There is Tom: “a cat”.",
    "Final Thought": " I know now.",
    "intermediate_steps": [
        [REFUSED, "Invalid JSON format. Please ensure 'Action Input' is a valid JSON object."],
        [STEP, 'Status Code: 200. Response: {"pets": ["Tom"]}'],
    ],
}
DOCUMENT = {
    "openapi": "3.0.0",
    "info": {"title": "Pets", "version": "1"},
    "paths": {
        "/pets": {
            "get": {
                "operationId": "searchPets",
                "summary": "Search.",
                "parameters": [
                    {"name": "kind", "in": "query", "schema": {"type": "string"}},
                    {"name": "page", "in": "query", "schema": {"type": "integer"}},
                ],
                "responses": {"200": {"description": "Pets."}},
            }
        }
    },
}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def imported(tmp_path: Path, format: str, *rows: object) -> RankedFile:
    """Tasks of what a file of these rows is imported to."""
    source = written(tmp_path / f"{format}.jsonl", *rows)
    write_rows(tmp_path / "ranked.jsonl", import_rows(source, format).rows, FEATURES)
    return RankedFile(path=str(tmp_path / "ranked.jsonl"))


def play(benchmark: Benchmark, format: Format = INLINE.format, tasks=None, **options) -> list[Group]:
    """Every recording's attempts at every task."""
    policies = {name: RecordedPolicy(name, replies) for name, replies in benchmark.recordings.items()}
    config = WorkerConfig(policies=policies, executor=partial(Executor, benchmark.catalog), format=format, **options)
    sources = [Source(name=name, policy=name) for name in policies]
    every = [*benchmark.train, *benchmark.validation, *benchmark.test] if tasks is None else tasks
    return asyncio.run(RolloutWorker(config).play(every, sources, "test"))


def every(benchmark: Benchmark) -> dict[str, Task]:
    return {task.id: task for task in (*benchmark.train, *benchmark.validation, *benchmark.test)}


# RRHF


@pytest.mark.parametrize("layout", ["lines", "list"])
def test_rrhf_rows_become_tasks_whose_responses_are_recorded_and_whose_scores_are_the_reward(tmp_path, layout):
    rows = [rrhf(number) for number in range(40)]
    path = tmp_path / "rrhf.json"
    path.write_text(json.dumps(rows) if layout == "list" else "\n".join(map(json.dumps, rows)))
    write_rows(tmp_path / "ranked.jsonl", import_rows(path, "rrhf").rows, FEATURES)
    benchmark = RankedFile(path=str(tmp_path / "ranked.jsonl")).load(0)
    assert len(every(benchmark)) == 40
    ranked = [Recorded().rank(group) for group in play(benchmark)]
    for group in ranked:
        row = rows[int(group.task.id.rpartition("-")[2]) - 1]
        assert group.task.prompt == row["query"]
        best, gold, second, third = group.candidates
        assert (best.reward.value, second.reward.value, third.reward.value) == (2.25, -1.5, -3.0)
        assert best.episode.text == gold.episode.text == row["responses"][1]
        assert [each.episode.source for each in (best, second, third)] == ["response_2", "response_1", "response_3"]


def test_authors_that_a_file_names_are_kept_and_those_that_come_twice_are_told_apart(tmp_path):
    row = rrhf(1) | {"origin": ["a model", "live", "a model"]}
    source = written(tmp_path / "rows.jsonl", row)
    assert import_rows(source, "rrhf").authors == "live (1), a model (1), a model_2 (1)"
    benchmark = imported(tmp_path, "rrhf", row, *(rrhf(number) for number in range(2, 40))).load(0)
    assert {"a model", "a model_2", "recorded_live"} < set(benchmark.recordings)  # live is the policy that learns


def test_rows_may_have_fewer_responses_than_others_and_none_counts_as_a_failure(tmp_path):
    benchmark = imported(tmp_path, "rrhf", *(rrhf(number, count=2 + number % 2) for number in range(40))).load(0)
    ranked = [Recorded().rank(group) for group in play(benchmark)]
    assert {len(group.candidates) for group in ranked} == {3, 4}
    assert sum(len(group.candidates) for group in ranked) == 20 * 2 + 20 * 3 + 40  # the best once more, as gold
    assert {group.dropped for group in ranked} == {0}
    assert len(WeightedSum().rank(play(benchmark)[0]).candidates) in (3, 4)  # whatever the ranking


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"responses": ["a"], "scores": [1]}, "its query is a text, not None; it has responses, scores"),
        ({"query": "?", "responses": [], "scores": []}, "its responses are a list of texts"),
        ({"query": "?", "responses": ["a", 1], "scores": [1, 2]}, "its responses are a list of texts"),
        ({"query": "?", "responses": ["a", "b"], "scores": [1]}, "it has 2 responses and 1 scores"),
        ({"query": "?", "responses": ["a"], "scores": ["1"]}, "its scores are a list of numbers"),
        ('{"query": "?", "responses": ["a"], "scores": [NaN]}', "its scores are a list of numbers"),
        ({"query": "?", "responses": ["a"], "scores": [True]}, "its scores are a list of numbers"),
        ({"query": "?", "responses": ["a"], "scores": [1], "origin": ["x", "y"]}, "its origin is a list of 1"),
        ({"query": "?", "responses": ["a"], "scores": [10**400]}, "its scores are a list of numbers"),
        ({"query": "\ud800", "responses": ["a"], "scores": [1]}, "'utf-8' codec can't encode character"),
    ],
)
def test_a_bad_row_is_named_with_what_was_expected(tmp_path, row, reason):
    source = written(tmp_path / "rows.jsonl", rrhf(0), row)
    with pytest.raises(DataError) as caught:
        import_rows(source, "rrhf")
    assert f"1 of 2 rows of {source} cannot be used: row 2: {reason}" in str(caught.value)
    assert "--skip-bad-rows" in str(caught.value)
    found = import_rows(source, "rrhf", skip_bad_rows=True)
    assert (len(found.rows), len(found.rejected)) == (1, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"query": "?"\n', ":1: this is not JSON"),
        (b"\n\n[1]\n", ":1: a row is a JSON object, and this is a int"),
        (b'{}\n"text"\n', ":2: a row is a JSON object, and this is a str"),
        (b"\xff\xfe", ":1: this is not JSON ('utf-8' codec"),
        (b"", "has no row that can be used as rrhf"),
    ],
)
def test_a_file_that_is_none_is_a_data_error_with_its_line(tmp_path, content, reason):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"rows\.jsonl") as caught:
        import_rows(source, "rrhf", skip_bad_rows=True)
    assert reason in str(caught.value)


def test_lines_that_are_no_rows_are_named_and_left_out_where_bad_rows_may_be(tmp_path):
    source = tmp_path / "rows.jsonl"
    good = json.dumps(rrhf(0)).encode()
    source.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, b"[1]", b'{"query": "\xff"}', good, good[:-9]]))
    with pytest.raises(DataError, match=r"rows\.jsonl:2: a row is a JSON object, and this is a list"):
        import_rows(source, "rrhf")
    found = import_rows(source, "rrhf", skip_bad_rows=True)
    assert len(found.rows) == 2
    assert [row.partition(": ")[0] for row in found.rejected] == [f"{source}:{line}" for line in (2, 3, 5)]


def test_a_column_of_authors_may_be_empty_in_some_rows(tmp_path):
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(
            [
                {"query": "?", "responses": ["a", "b"], "scores": [1, 0]},
                {"query": "?", "responses": ["a"], "scores": [1], "origin": ["me"]},
            ],
            schema=pyarrow.schema(
                {
                    "query": pyarrow.string(),
                    "responses": pyarrow.list_(pyarrow.string()),
                    "scores": pyarrow.list_(pyarrow.int64()),
                    "origin": pyarrow.list_(pyarrow.string()),
                }
            ),
        ),
        tmp_path / "rows.parquet",
    )
    assert import_rows(tmp_path / "rows.parquet", "rrhf").authors == "response_1 (1), response_2 (1), me (1)"


def test_a_missing_file_a_broken_parquet_file_and_an_unknown_format_are_typed_errors(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        import_rows(tmp_path / "none.jsonl", "rrhf")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot read"):
        import_rows(tmp_path / "rows.parquet", "rrhf")
    with pytest.raises(ConfigError, match="no format 'verl' to import; there are rrhf, trice, toolalpaca"):
        import_rows(tmp_path / "rows.parquet", "verl")


# TRICE


def test_trice_rows_are_calls_and_answers_in_the_inline_format_that_our_tools_can_run(tmp_path):
    config = imported(tmp_path, "trice", *map(trice, range(40)))
    for tools in ([], ["calculator"]):
        benchmark = config.model_copy(update={"tools": tools}).load(0)
        groups = play(benchmark)
        for group in groups:
            number = int(group.task.id.rpartition("-")[2]) - 1
            by_source = {episode.source: episode for episode in group.episodes}
            assert by_source["gold"].calls == (ToolCall("calculator", {"expression": f"{number}+4"}),)
            assert by_source["gold"].observations[0].content == (str(number + 4) if tools else f"{number + 4}.0")
            assert by_source["gold"].answer == f"{number + 4}.0"
            assert by_source["chatgpt"].turns[0].completion.text == f"So calculator({number}*4)->"
            assert by_source["vicuna"].answer == "The answer is 54."
            assert not by_source["alpaca"].observations[0].ok
            assert (group.task.answer, group.task.needs_tool) == (f"{number + 4}.0", True)
        assert [candidate.reward.value for candidate in Recorded().rank(groups[0]).candidates] == [20, 20, 15, 0]


def test_other_rankings_can_judge_imported_attempts_anew(tmp_path):
    benchmark = imported(tmp_path, "trice", *map(trice, range(40))).load(0)
    ranked = {group.task.id: TriceLadder().rank(group) for group in play(benchmark)}
    by_source = {each.episode.source: each.reward.value for each in ranked["trice-3"].candidates}  # 2 + 4, 2 * 4
    assert by_source == {"gold": 20, "chatgpt": 10, "vicuna": 5, "alpaca": 10}


def test_a_trice_call_that_is_not_closed_stays_malformed(tmp_path):
    row = trice() | {"responses": ["calculator(1+3)", "QA(who", "The answer is 54.", "calculator(1/0)"]}
    (ranked,) = import_rows(written(tmp_path / "rows.jsonl", row), "trice").rows
    candidate = next(each for each in ranked["candidates"] if each["source"] == "chatgpt")
    assert candidate["replies"] == ["QA(who"]
    assert [message.get("status") for message in candidate["messages"]] == [None, "malformed"]
    assert [tool["function"]["name"] for tool in ranked["tools"]] == ["calculator", "QA"]


def test_a_tool_that_the_instruction_names_is_offered_though_nobody_calls_it(tmp_path):
    row = trice() | {"responses": ["4"] * 4}
    (ranked,) = import_rows(written(tmp_path / "rows.jsonl", row), "trice").rows
    assert [tool["function"]["name"] for tool in ranked["tools"]] == ["calculator"]


def test_trice_rows_need_an_answer_for_each_response(tmp_path):
    source = written(tmp_path / "rows.jsonl", trice() | {"answer": ["1"]})
    with pytest.raises(DataError, match="row 1: its answer is a list of 4, one for each response"):
        import_rows(source, "trice")


# ToolAlpaca


def layout(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False))
    return path


def test_an_instance_is_an_episode_and_needs_nothing_beside_it(tmp_path):
    (instance,) = read_instances(layout(tmp_path / "in.json", [INSTANCE]))
    episode = instance.episode
    refused, called, final = episode.turns
    assert isinstance(refused.calls[0], MalformedCall)
    assert refused.observations[0].status == "bad_call"
    assert called.calls == (ToolCall("searchPets", {"kind": "cat", "page": 1}),)
    assert called.observations == (Observation('Status Code: 200. Response: {"pets": ["Tom"]}', recorded=True),)
    assert final.completion.text == " I know now.\nASSISTANT Response: There is Tom: “a cat”."
    assert (episode.answer, episode.stop) == ("There is Tom: “a cat”.", "answer")
    assert instance.kept == {}


ODD = [
    INSTANCE,
    INSTANCE | {"intermediate_steps": [[["searchPets", "{ }", " no markers here"], "Status Code: 404. Response: {}"]]},
    {
        "output": "x",
        "input": "?",
        "intermediate_steps": [],
        "Final Thought": "y\nASSISTANT Response: z",
        "mine": [1.50],
    },
    {
        "input": "?",
        "output": "Agent stopped due to iteration limit or time limit.",
        "intermediate_steps": [[STEP, "Ok"]],
    },
    {"input": "?", "error": "no match"},
    {"input": "?", "output": "no steps", "intermediate_steps": []},
    {
        "input": "?",
        "output": "done",
        "Final Thought": " so",
        "intermediate_steps": [
            [["f", '{"a": "b"}', ' t\nAction: f\nAction Input: "{"a": "b"}"'], "Status Code: 500. Response: x"]
        ],
    },
]


def test_instances_are_written_as_they_were_read_byte_by_byte(tmp_path):
    source = layout(tmp_path / "in.json", ODD)
    instances = read_instances(source)
    write_instances(tmp_path / "out.json", instances)
    assert (tmp_path / "out.json").read_bytes() == source.read_bytes()
    assert [instance.episode.stop for instance in instances] == [
        *("answer", "answer", "answer", "turn_limit", "failed", "answer", "answer"),
    ]
    assert [sorted(instance.kept) for instance in instances] == [
        *([], ["intermediate_steps"], ["Final Thought", "mine", "output"], [], [], [], []),
    ]
    assert instances[6].episode.observations[0].status == "tool_error"


def test_an_episode_of_ours_can_be_written_as_an_instance(tmp_path):
    format = ToolAlpacaFormat()
    (read,) = read_instances(layout(tmp_path / "in.json", [INSTANCE]))
    replies = [turn.completion.text + (format.stop[0] if turn.calls else "") for turn in read.episode.turns]
    executor = lambda: Executor(RankedFile(path=str(ranked)).catalog())  # noqa: E731
    ranked = tmp_path / "ranked.jsonl"
    write_rows(ranked, import_rows(tmp_path / "in.json", "toolalpaca").rows, FEATURES)
    config = WorkerConfig(policies={"p": RecordedPolicy("p", {"t": replies})}, executor=executor, format=format)
    asked = Task(id="t", prompt=INSTANCE["input"], tools=("searchPets",))
    (group,) = asyncio.run(RolloutWorker(config).play([asked], [Source(name="p", policy="p")], "r"))
    told = record(Instance(task=asked, episode=group.episodes[0]))
    assert told["intermediate_steps"][1] == INSTANCE["intermediate_steps"][1]
    assert {key: told[key] for key in ("input", "output", "Final Thought")} == {
        key: INSTANCE[key] for key in ("input", "output", "Final Thought")
    }


def test_api_records_give_their_tools_and_failures_of_their_agents_are_kept(tmp_path):
    api = {
        "Name": "Pets",
        "Documentation": json.dumps(DOCUMENT),
        "Instances": [INSTANCE, "json.decoder.JSONDecodeError"],
    }
    source = layout(tmp_path / "apis.json", [api, {"Name": "Empty", "Documentation": "{}"}])
    good, bad = read_instances(source)
    assert (good.task.id, bad.episode.stop, record(bad)) == ("Pets-1", "failed", "json.decoder.JSONDecodeError")
    assert good.api["Name"] == "Pets"
    with pytest.raises(DataError, match="instance Pets-2: it has no answer to learn from"):
        import_rows(source, "toolalpaca")
    (row,) = import_rows(source, "toolalpaca", skip_bad_rows=True).rows
    (tool,) = row["tools"]
    assert set(tool["function"]["parameters"]["properties"]) == {"kind", "page"}
    assert row["prompt"] == [{"role": "user", "content": "Which cats are there?"}]
    assert row["candidates"][0]["status"] == "malformed"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"output": "x"}], ":1: this is no instance of ToolAlpaca's: it is an object with an input"),
        ([{"input": "?", "intermediate_steps": [["a"]]}], ":1: this is no instance"),
        ([{"input": "?", "intermediate_steps": [[["a", "{}", 3], "x"]]}], "all texts, and has 3"),
        ([{"Name": "A", "Instances": 3}], ":1: its Instances are a list"),
        ([{"Name": "A", "Instances": [INSTANCE, 5]}], "instance 2 of A: this is no instance"),
    ],
)
def test_a_bad_instance_is_named_with_its_place(tmp_path, content, reason):
    source = layout(tmp_path / "in.json", content)
    with pytest.raises(DataError, match=r"in\.json") as caught:
        read_instances(source)
    assert reason in str(caught.value)
    rejected: list[str] = []
    assert [instance.task.prompt for instance in read_instances(source, rejected)] in ([], [INSTANCE["input"]])
    assert len(rejected) == 1 and reason in rejected[0]


def test_imported_instances_play_again_just_as_they_were(tmp_path):
    instances = [INSTANCE | {"input": f"Which cats are in house {number}?"} for number in range(40)]
    source = layout(
        tmp_path / "in.json", [{"Name": "Pets", "Documentation": json.dumps(DOCUMENT), "Instances": instances}]
    )
    write_rows(tmp_path / "ranked.jsonl", import_rows(source, "toolalpaca").rows, FEATURES)
    benchmark = RankedFile(path=str(tmp_path / "ranked.jsonl")).load(0)
    rows = {place.row["id"]: place.row for place in read_rows(tmp_path / "ranked.jsonl")}
    for group in play(benchmark, ToolAlpacaFormat()):
        for episode in group.episodes:
            assert episode.answer == "There is Tom: “a cat”."
            messages = conversation(episode, ToolAlpacaFormat(), benchmark.catalog.specs())
            recorded = rows[group.task.id]["candidates"][0]["messages"]
            assert messages[2:] == recorded[2:]
            assert messages[0] == {**recorded[0], "content": messages[0]["content"]}


# Ranked files


def test_what_a_run_exports_can_be_learned_from_again(tmp_path):
    path = tmp_path / "ranked.parquet"
    export([*records(30), *records(3)], INLINE, "ranked", path)
    benchmark = RankedFile(path=str(path), validation_share=0.3).load(0)
    assert len(every(benchmark)) == 33
    assert {"task-1", "task-1#2"} < every(benchmark).keys()  # attempted in two rounds
    assert benchmark.catalog.names == ("calculator", "lookup")
    assert not benchmark.rejected
    originals = {each.group.task.id: each.group for each in records(30)}
    for group in map(Recorded().rank, play(benchmark)):
        original = originals[group.task.id.partition("#")[0]]
        assert group.task.answer == original.task.answer
        replayed = {each.episode.source: each for each in group.candidates}
        for candidate in original.candidates:
            again = replayed[candidate.episode.source]
            assert again.reward.value == candidate.reward.value
            assert again.episode.text == candidate.episode.text
            assert [(seen.content, seen.status) for seen in again.episode.observations] == [
                (seen.content, seen.status) for seen in candidate.episode.observations
            ]


def test_recorded_tools_give_what_was_recorded_and_fail_on_anything_else(tmp_path):
    path = tmp_path / "ranked.jsonl"
    export(records(30), INLINE, "ranked", path)
    executor = Executor(pickle.loads(pickle.dumps(RankedFile(path=str(path)).catalog())))
    assert executor.run(ToolCall("calculator", {"expression": "7*3"})).content == "21"
    unknown = executor.run(ToolCall("calculator", {"expression": "7*4"}))
    assert unknown.status == "tool_error"
    assert "was not recorded" in unknown.content
    assert executor.run(ToolCall("calculator", {"expression": "1/0"})).status == "tool_error"
    real = Executor(RankedFile(path=str(path), tools=["calculator"]).catalog())
    assert real.run(ToolCall("calculator", {"expression": "7*4"})).content == "28"


def hand_written(number: int, **changes) -> dict:
    row = {
        "prompt": f"Say {number}.",
        "candidates": [{"score": 1, "replies": [str(number)]}, {"score": 0, "replies": ["?"]}],
    }
    return row | changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": ""}, "its prompt is a text or messages with one of the user's"),
        ({"prompt": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "with one of the user's"),
        ({"candidates": []}, "it has no candidates"),
        ({"candidates": None}, "candidates is a list, not 'None'"),
        ({"candidates": [{"score": "1", "replies": ["a"]}]}, "the score of candidate 1 is a number, not '1'"),
        ({"candidates": [{"score": 1}]}, "candidate 1 has no replies"),
        ({"candidates": [3]}, "candidate 1 is an object, not 3"),
        ({"tools": [{"name": "f"}]}, "a tool reads"),
        ({"task": 3}, "its task is an object"),
        ({"task": {"aliases": 3}}, "aliases"),
        ({"candidates": [{"score": 1, "replies": ["a"], "messages": [3]}]}, "row 41: "),
    ],
)
def test_a_row_that_cannot_be_ranked_is_named_and_never_silently_dropped(tmp_path, changes, reason):
    path = written(tmp_path / "rows.jsonl", *map(hand_written, range(40)), hand_written(40, **changes))
    with pytest.raises(DataError) as caught:
        RankedFile(path=str(path)).load(0)
    assert f"1 of 41 rows of {path} cannot be used: row 41: " in str(caught.value)
    assert reason in str(caught.value)
    benchmark = RankedFile(path=str(path), skip_bad_rows=True).load(0)
    assert (len(every(benchmark)), len(benchmark.rejected)) == (40, 1)


def test_a_tool_that_two_rows_describe_otherwise_is_named(tmp_path):
    def tool(purpose):
        return {"type": "function", "function": {"name": "f", "description": purpose, "parameters": {"type": "object"}}}

    path = written(tmp_path / "rows.jsonl", hand_written(0, tools=[tool("a")]), hand_written(1, tools=[tool("b")]))
    with pytest.raises(DataError, match="row 2: its tool 'f' is described otherwise on an earlier row"):
        RankedFile(path=str(path)).load(0)


def test_a_reward_that_was_not_recorded_is_no_reward():
    made = records(1)[0].group
    group = Group(task(0, scores={"good": 2.0}), tuple(candidate.episode for candidate in made.candidates))
    with pytest.raises(DataError, match=r"has no recorded reward for 'hasty'.*it has them for good"):
        Recorded().rank(group)


def test_rewards_of_many_kinds_are_counted_in_few_words():
    group = records(1)[0].group
    candidates = tuple(replace(group.candidates[0], reward=Reward(number / 7)) for number in range(200))
    counts = level_counts([replace(group, candidates=candidates)])
    assert sum(counts.values()) == 200
    assert len(counts) < 40
    assert level_counts([group]) == {"2": 1, "1": 1, "0": 1}


def config(path: Path, **changes) -> dict:
    """Ranked learning from three recorded authors, offline."""
    return {
        "recipe": "trice",
        "name": "recorded",
        "tasks": {"kind": "ranked", "path": str(path)},
        "model": {"kind": "tiny", "width": 16, "layers": 1, "heads": 2, "max_length": 128},
        "cloning": {"steps": 2, "batch_size": 4},
        "sources": [{"name": f"r{number}", "policy": f"response_{number}"} for number in (1, 2, 3)],
        "rewards": {"kind": "recorded"},
        "improvement": {"rounds": 2, "tasks_per_round": 8, "batch_size": 4, "validate_every": 1},
        "evaluation": {"kind": "ranking"},
        "rollouts": {"max_turns": 1},
        "ray": {"dashboard": False},
    } | changes


def test_recorded_rewards_are_for_recorded_attempts_alone():
    live = [{"name": "own", "policy": "live"}]
    with pytest.raises(ConfigError, match="source 'own' plays 'live', whose attempts have no recorded reward"):
        validate(config(Path("rows.jsonl"), sources=live), TriceConfig, "it")
    with pytest.raises(ConfigError, match="takes the rewards of tasks of kind 'ranked', not 'arithmetic'"):
        validate(config(Path("rows.jsonl"), tasks={"kind": "arithmetic"}), TriceConfig, "it")


# From a file to a policy


def test_the_command_imports_a_file_and_check_finds_it_fit_to_learn_from(tmp_path, capsys):
    rows = [rrhf(number, count=2 + number % 2) for number in range(60)]
    source = written(tmp_path / "rrhf.jsonl", *rows, {"query": "?"})
    out = tmp_path / "ranked.jsonl"
    app(["import", "rrhf", str(source), str(out), "--skip-bad-rows"], standalone_mode=False)
    said = capsys.readouterr()
    assert "60 tasks" in said.out
    assert "response_2 (60), response_1 (60), response_3 (30)" in said.out
    assert "left out: row 61: its responses are a list of texts" in said.err
    found = list(check_config(validate(config(out), TriceConfig, "it")))
    assert any("0 rows left out" in line for line in found)
    assert found[-1].endswith("gold attempts are right")
    good, _, total = found[-1].removeprefix("gold").strip().partition(" of ")
    assert good == total.split()[0]


def test_a_policy_learns_the_order_that_the_file_gives(tmp_path):
    benchmark = imported(tmp_path, "rrhf", *(rrhf(number) for number in range(40))).load(0)
    tokenizer = build_tokenizer([task.prompt for task in benchmark.train], vocab_size=320, max_length=128)
    encoder = Encoder(tokenizer, InlineFormat(), {}, max_tokens=128)

    def ranked(tasks) -> list[RankedGroup]:
        return [Recorded().rank(group) for group in play(benchmark, tasks=tasks, max_turns=1)]

    train, held_out = encoder.examples(ranked(benchmark.train)), encoder.examples(ranked(benchmark.test))
    assert all(len(example.rows) == 3 for example in train)  # gold is the best once more, and merged with it
    learner = Learner(build_model(len(tokenizer), width=32, layers=1, heads=2, max_length=128), pad_id=0)
    before = accuracy(learner, held_out)
    learner.begin(Stage(name="improve", objective=Rrhf(), optimiser=OptimiserConfig(lr=0.003), steps=30))
    generator = np.random.default_rng(0)
    for step in range(30):
        learner.step([train[place] for place in generator.choice(len(train), 8, replace=False)], step)
    assert accuracy(learner, held_out) > max(0.6, before)


def accuracy(learner: Learner, examples) -> float:
    ratio = rank_ratios(learner, examples)["rank_accuracy"]
    parts, wholes = ratio.arrays()
    return float(parts.sum() / wholes.sum())
