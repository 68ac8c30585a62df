"""Exports, read as their readers do: TRL's trainers, datasets, pandas, ATIF's own rules."""

import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas
import pytest
import trl.data_utils
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from executors.errors import ConfigError, DataError
from executors.types import MalformedCall, Observation, ToolCall
from rewards.types import Reward
from rl.cli import app
from rl.data.conversations import Setting, conversation, prompt, status, transcript
from rl.data.exports import ExportOptions, export, features
from rl.data.ranked import ranked_group
from rl.data.rounds import RoundGroup
from rl.data.rows import read_rows
from rl.models.tiny import build_model
from rollouts.formats.chat import ChatFormat
from rollouts.formats.inline import AnnotatedFormat, InlineFormat
from rollouts.formats.react import ReactFormat
from rollouts.formats.toolalpaca import ToolAlpacaFormat
from rollouts.store import Log
from rollouts.types import Completion, Group, Turn
from tests.rl.chat_tokenizers import tokenizer_with
from tests.rl.recorded_groups import CATALOG, INLINE, played, record, records, sampled, task
from tests.rollouts.chat_templates import ChatMl

SPECS = CATALOG.specs()
ASKED = task(4)


def load(path: Path, **options) -> datasets.Dataset:
    kind = "json" if path.suffix == ".jsonl" else "parquet"
    return datasets.load_dataset(
        kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache"), **options
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def calls(name: str, arguments: dict, content: str = "") -> dict:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": "call_0_0", "type": "function", "function": function}],
    }


# Messages


@pytest.mark.parametrize(
    ("format", "replies", "content", "final"),
    [
        (InlineFormat(), ("So: calculator(4*3)->", "Answer: 12"), "So:", "12"),
        (AnnotatedFormat(), ("4 times 3 = <<4*3>>", " apples\n#### 12"), "4 times 3 =", "apples\n#### 12"),
        (
            ReactFormat(),
            (
                'Thought: multiply\nAction: calculator\nAction Input: {"expression": "4*3"}\nObservation:',
                "Thought: done\nFinal Answer: 12",
            ),
            "multiply",
            "done\n12",
        ),
        (
            ToolAlpacaFormat(),
            (
                ' multiply\nASSISTANT Action: calculator\nASSISTANT Action Input: {"expression": "4*3"}',
                " done\nASSISTANT Response: 12",
            ),
            "multiply",
            "done\n12",
        ),
        (
            ToolAlpacaFormat(variant="train_v2"),
            (' multiply\nAction: calculator\nAction Input: {"expression": "4*3"}', "\nFinal Answer: 12"),
            "multiply",
            "12",
        ),
        (
            ChatFormat(ChatMl()),
            (
                'multiply\n<tool_call>\n{"name": "calculator", "arguments": {"expression": "4*3"}}\n</tool_call>',
                "12<|im_end|>",
            ),
            "multiply",
            "12",
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_reply_is_told_as_content_and_calls_in_every_format(format, replies, content, final):
    episode = played(ASKED, format, replies)
    assert conversation(episode, format, SPECS) == [
        calls("calculator", {"expression": "4*3"}, content),
        {"role": "tool", "tool_call_id": "call_0_0", "name": "calculator", "content": "12", "status": "ok"},
        {"role": "assistant", "content": final},
    ]
    assert status(episode) == "ok"


def test_parallel_calls_of_a_chat_have_ids_and_results_of_their_own_and_thoughts_stand_apart():
    format = ChatFormat(ChatMl(), system="Be brief.")
    call = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "%s"}}\n</tool_call>'
    reply = "<think>\nboth\n</think>\n\n" + call % "1+1" + call % "1/0"
    first, *results, _ = conversation(played(ASKED, format, (reply, "Two.<|im_end|>")), format, SPECS)
    assert first["reasoning_content"] == "both"
    assert [each["id"] for each in first["tool_calls"]] == ["call_0_0", "call_0_1"]
    assert [(each["tool_call_id"], each["status"]) for each in results] == [
        ("call_0_0", "ok"),
        ("call_0_1", "tool_error"),
    ]
    assert results[1]["content"].startswith("error: cannot evaluate")
    assert [message["role"] for message in prompt(ASKED, format)] == ["system", "user"]


@pytest.mark.parametrize(
    ("format", "reply"),
    [
        (InlineFormat(), "calculator(4*3"),
        (AnnotatedFormat(), "<<4*3=12 and so on"),
        (ReactFormat(), "Thought: I just know it."),
        (ChatFormat(ChatMl()), '<tool_call>\n{"name": "calculator", "argu'),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_malformed_call_stays_visible_with_its_error_and_is_never_plain_text(format, reply):
    episode = played(ASKED, format, (reply, format.write_answer("12")))
    first, second, *_ = conversation(episode, format, SPECS)
    assert first == {"role": "assistant", "content": reply}
    assert (second["role"], second["status"]) == ("tool", "malformed")
    assert second["content"] == f"error: {episode.observations[0].content}"
    assert status(episode) == "malformed"


def test_a_reply_with_a_readable_and_an_unreadable_call_keeps_both():
    good, bad = ToolCall("lookup", {"name": "x"}), MalformedCall('{"name": ', "cut")
    seen = (Observation("found"), Observation("cut", "bad_call"))
    turn = Turn(Completion(text='Both. {"name": '), (good, bad), seen)
    episode = replace(played(ASKED, INLINE.format, ("Answer: 1",)), turns=(turn,))
    first, found, unread = conversation(episode, INLINE.format, SPECS)
    assert first["content"] == 'Both. {"name": '
    assert [call["function"]["name"] for call in first["tool_calls"]] == ["lookup"]
    assert (found["status"], unread["status"]) == ("ok", "malformed")


def test_an_attempt_that_failed_or_was_cut_is_said_to_be_one():
    cut = replace(played(ASKED, INLINE.format, ("Answer: 1",)), stop="token_limit")
    assert status(cut) == "error"
    assert status(played(ASKED, INLINE.format, ("calculator(1/0)->", "Answer: 1"))) == "error"
    assert status(played(ASKED, INLINE.format, ("calculator(1+1)->",), max_turns=1)) == "ok"


def test_a_transcript_is_what_the_policy_wrote_and_read():
    episode = played(ASKED, INLINE.format, ("calculator(4*3)->", "Answer: 12"))
    assert transcript(episode, INLINE.format) == "calculator(4*3)->12\nAnswer: 12"


# TRL


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("format", ["sft", "prompt_completion", "preference"])
def test_datasets_reads_conversations_without_a_null_that_nobody_wrote(tmp_path, format, suffix):
    export(records(), INLINE, format, tmp_path / "rows.jsonl")
    export(records(), INLINE, format, tmp_path / f"rows.{suffix}")
    written = lines(tmp_path / "rows.jsonl")
    read = list(load(tmp_path / f"rows.{suffix}"))
    assert len(read) == 6
    for ours, theirs in zip(written, read, strict=True):
        assert _rounded(theirs) == _rounded(ours)
    calls = [call for row in read for message in _all(row) for call in message.get("tool_calls") or ()]
    assert {tuple(call["function"]["arguments"]) for call in calls} >= {("expression",)}
    if format == "preference":
        assert ("name", "limit", "share") in {tuple(call["function"]["arguments"]) for call in calls}


def test_numbers_are_exact_in_parquet_and_text_that_looks_like_json_stays_text(tmp_path):
    asked = task(0, answer="12")
    made = record(asked, {"own": (1.0, ('lookup(name="12", share=0.12345678901234567)->', "Answer: {}"))})
    export([made], INLINE, "sft", tmp_path / "rows.parquet")
    (place,) = read_rows(tmp_path / "rows.parquet")
    _, call, _, final = place.row["messages"]
    assert call["tool_calls"][0]["function"]["arguments"] == {"name": "12", "share": 0.12345678901234567}
    assert final["content"] == "{}"
    (loaded,) = load(tmp_path / "rows.parquet")
    assert loaded["messages"][3]["content"] == "{}"
    assert math.isclose(
        loaded["messages"][1]["tool_calls"][0]["function"]["arguments"]["share"], 0.12345678901234567, rel_tol=1e-13
    )


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_with("qwen3_training", max_length=4096)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(len(tokenizer), width=8, layers=1, heads=1, max_length=4096)


@pytest.mark.parametrize("format", ["sft", "prompt_completion", "preference"])
def test_trl_renders_every_row_with_its_tools_and_calls(tmp_path, tokenizer, format):
    path = tmp_path / "rows.jsonl"
    export(records(), INLINE, format, path)
    for number, row in enumerate(load(path)):
        assert trl.data_utils.is_conversational(row)
        rendered = trl.data_utils.maybe_apply_chat_template(row, tokenizer, tools=row["tools"])
        text = "".join(rendered[name] for name in ("text", "prompt", "completion", "chosen") if name in rendered)
        assert f'{{"name": "calculator", "arguments": {{"expression": "{number}*3"}}}}' in text
        assert '"name": "lookup"' in text
        assert "null" not in text
        if format == "preference":
            assert rendered["chosen"] != rendered["rejected"]


def test_sft_trainer_learns_from_the_assistants_words_alone(tmp_path, tokenizer, model):
    path = tmp_path / "rows.jsonl"
    export(records(), INLINE, "sft", path)
    settings = {"use_cpu": True, "bf16": False, "max_length": 4096, "report_to": [], "max_steps": 1}
    config = SFTConfig(output_dir=str(tmp_path), assistant_only_loss=True, per_device_train_batch_size=2, **settings)
    trainer = SFTTrainer(model=model, args=config, train_dataset=load(path), processing_class=tokenizer)
    assert len(trainer.train_dataset) == 6
    row = trainer.train_dataset[2]
    learned = tokenizer.decode(
        [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label >= 0]
    )
    assert '"arguments": {"expression": "2*3"}' in learned
    assert "tool_response" not in learned
    assert trainer.train().training_loss > 0


def test_dpo_trainer_takes_the_preference_rows(tmp_path, tokenizer, model):
    path = tmp_path / "rows.parquet"
    export(records(), INLINE, "preference", path)
    settings = {"use_cpu": True, "bf16": False, "max_length": 4096, "report_to": [], "max_steps": 1}
    config = DPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=2, **settings)
    trainer = DPOTrainer(
        model=model, ref_model=deepcopy(model), args=config, train_dataset=load(path), processing_class=tokenizer
    )
    row = trainer.train_dataset[1]
    assert "calculator(3*" in tokenizer.decode(row["rejected_ids"])
    assert '"expression": "1*3"' in tokenizer.decode(row["chosen_ids"])
    assert trainer.train().training_loss > 0


def test_the_best_candidate_is_imitated_and_says_where_it_comes_from(tmp_path):
    export(records(2), INLINE, "sft", tmp_path / "rows.jsonl")
    row = lines(tmp_path / "rows.jsonl")[1]
    assert (row["id"], row["source"], row["score"], row["status"]) == ("task-1", "good", 2.0, "ok")
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert [tool["function"]["name"] for tool in row["tools"]] == ["calculator", "lookup"]


def test_text_is_the_very_text_of_the_run(tmp_path):
    export(records(1), INLINE, "preference", tmp_path / "rows.parquet", ExportOptions(text=True))
    (row,) = load(tmp_path / "rows.parquet")
    assert row["prompt"] == "What is 0 times 3?\n"
    assert row["chosen"] == "I need it: calculator(0*3)->0\nAnswer: 0"
    assert row["rejected"].startswith('lookup(name="x"')
    assert "tools" not in row


def test_pairs_are_the_extremes_or_all_that_differ_by_more_than_the_margin(tmp_path):
    def pairs(**options) -> list[tuple[str, str]]:
        export(records(1), INLINE, "preference", tmp_path / "rows.jsonl", ExportOptions(**options))
        return [(row["source_chosen"], row["source_rejected"]) for row in lines(tmp_path / "rows.jsonl")]

    assert pairs() == [("good", "bad")]
    assert pairs(pairs="all") == [("good", "hasty"), ("good", "bad"), ("hasty", "bad")]
    assert pairs(pairs="all", margin=1.0) == [("good", "bad")]
    assert pairs(margin=2.0) == []


def test_groups_without_a_pair_or_a_candidate_are_left_out_and_counted(tmp_path):
    tied = record(task(1), {"a": (1.0, ("Answer: 3",)), "b": (1.0, ("Answer: 3.0",))})
    empty = record(task(2), {})
    exported = export([*records(1), tied, empty], INLINE, "preference", tmp_path / "rows.jsonl")
    assert (exported.groups, exported.rows) == (3, 1)
    assert exported.left_out == {"no two rewards differ enough": 1, "no candidate": 1}


# Ours and RRHF's


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_ranked_rows_lose_nothing(tmp_path, suffix):
    groups = [sampled(each) for each in records()]
    export(groups, INLINE, "ranked", tmp_path / f"rows.{suffix}")
    rows = [place.row for place in read_rows(tmp_path / f"rows.{suffix}")]
    assert [ranked_group(row) for row in rows] == [each.group for each in groups]
    assert [(row["round"], row["version"]) for row in rows] == [(each.round, 7) for each in groups]
    candidate = rows[1]["candidates"][2]
    assert (candidate["status"], candidate["score"], candidate["parts"]) == ("malformed", 0.0, {"correct": 0.0})
    assert candidate["token_ids"][0] == [ord(letter) for letter in "calculator(3*"]
    assert candidate["messages"][1]["status"] == "malformed"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_datasets_and_pandas_read_ranked_rows(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    export([sampled(each) for each in records()], INLINE, "ranked", path)
    assert [len(row["candidates"]) for row in load(path)] == [3] * 6
    frame = pandas.read_parquet(path) if suffix == "parquet" else pandas.read_json(path, lines=True)
    assert list(frame["id"]) == [f"task-{number}" for number in range(6)]


def test_rows_of_others_are_no_ranked_groups():
    with pytest.raises(DataError, match=r"row 'a' is no ranked group.*dropped"):
        ranked_group({"id": "a", "task": {"id": "a", "prompt": "?"}, "candidates": []})


def test_rrhf_rows_have_query_responses_and_scores_best_first(tmp_path):
    export(records(1), INLINE, "rrhf", tmp_path / "rows.jsonl")
    (row,) = lines(tmp_path / "rows.jsonl")
    assert row["query"] == "What is 0 times 3?\n"
    assert row["responses"][:2] == ["I need it: calculator(0*3)->0\nAnswer: 0", "Answer: 5"]
    assert row["scores"] == [2.0, 1.0, 0.0]
    assert row["origin"] == ["good", "hasty", "bad"]
    assert row["answer"] == ["0", "5", "1"]


# verl and SkyRL


def test_verl_rows_have_the_columns_and_types_that_its_dataset_reads(tmp_path):
    path = tmp_path / "train.parquet"
    gold = record(task(9, answer=None, gold=ToolCall("calculator", {"expression": "9*3"})), {})
    unknown = record(task(8, answer=None), {})
    exported = export([*records(3), *records(2), gold, unknown], INLINE, "verl", path)
    assert (exported.rows, dict(exported.left_out)) == (4, {"its task is there already": 2, "no answer is expected": 1})
    frame = pandas.read_parquet(path)
    row = frame.iloc[1]
    assert list(row["prompt"]) == [{"role": "user", "content": "What is 1 times 3?"}]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "3"}
    assert (row["data_source"], row["agent_name"], row["ability"]) == ("a-run", "tool_agent", "tool_use")
    assert row["extra_info"]["index"] == 1
    assert [tool["function"]["name"] for tool in json.loads(row["extra_info"]["tools"])] == ["calculator", "lookup"]
    assert json.loads(frame.iloc[3]["reward_model"]["ground_truth"])["arguments"] == {"expression": "9*3"}
    loaded = load(path)  # as RLHFDataset does
    assert loaded[1].get("extra_info", {}).get("need_tools_kwargs") is False
    assert loaded[0]["prompt"][-1]["role"] == "user"


def test_skyrl_rows_name_their_environment_and_rule(tmp_path):
    path = tmp_path / "train.parquet"
    made = record(task(1, aliases=("three",)), {})
    export([made], INLINE, "skyrl", path, ExportOptions(env_class="my_env", split="validation"))
    (row,) = load(path)
    assert row["env_class"] == "my_env"
    assert row["reward_spec"] == {"method": "rule", "ground_truth": "3"}
    assert (row["extra_info"]["aliases"], row["extra_info"]["split"]) == (["three"], "validation")
    assert set(row) == {"data_source", "prompt", "env_class", "reward_spec", "extra_info"}


# ATIF


class Atif(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AtifCall(Atif):
    tool_call_id: str
    function_name: str
    arguments: dict[str, Any]


class AtifResult(Atif):
    source_call_id: str | None = None
    content: str | None = None
    extra: dict[str, Any] | None = None


class AtifObservation(Atif):
    results: list[AtifResult]


class AtifMetrics(Atif):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    completion_token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    extra: dict[str, Any] | None = None


class AtifStep(Atif):
    step_id: int = Field(ge=1)
    source: Literal["system", "user", "agent"]
    message: str
    reasoning_content: str | None = None
    tool_calls: list[AtifCall] | None = None
    observation: AtifObservation | None = None
    metrics: AtifMetrics | None = None
    llm_call_count: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _agents_alone(self):
        own = (self.reasoning_content, self.tool_calls, self.metrics, self.llm_call_count)
        assert self.source == "agent" or own == (None, None, None, None)
        return self


class AtifAgent(Atif):
    name: str
    version: str
    model_name: str
    tool_definitions: list[dict[str, Any]]
    extra: dict[str, Any]


class AtifTotals(Atif):
    total_prompt_tokens: int | None = None
    total_completion_tokens: int | None = None
    total_cost_usd: float | None = None
    total_steps: int = Field(ge=0)
    extra: dict[str, Any]


class AtifTrajectory(Atif):
    """The rules of ATIF 1.7 as far as they touch what is written here."""

    schema_version: Literal["ATIF-v1.7"]
    session_id: str
    trajectory_id: str
    agent: AtifAgent
    steps: list[AtifStep] = Field(min_length=1)
    notes: str | None = None
    final_metrics: AtifTotals
    extra: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self):
        assert [step.step_id for step in self.steps] == list(range(1, len(self.steps) + 1))
        for step in self.steps:
            ids = {call.tool_call_id for call in step.tool_calls or ()}
            results = step.observation.results if step.observation else ()
            assert {result.source_call_id for result in results} - {None} <= ids
        return self


def test_every_attempt_becomes_a_trajectory_by_the_rules_of_atif(tmp_path):
    exported = export([sampled(each) for each in records()], INLINE, "atif", tmp_path / "trajectories")
    files = sorted((tmp_path / "trajectories").iterdir())
    assert exported.rows == len(files) == 18
    trajectories = [AtifTrajectory.model_validate_json(file.read_text()) for file in files]
    assert len({each.trajectory_id for each in trajectories}) == 18
    right, _, bad = trajectories[3:6]
    assert [step.source for step in right.steps] == ["user", "agent", "agent"]
    call, result = right.steps[1].tool_calls[0], right.steps[1].observation.results[0]
    assert (call.arguments, result.source_call_id, result.content) == (
        {"expression": "1*3"},
        call.tool_call_id,
        "3",
    )
    assert right.steps[1].metrics.completion_token_ids == [ord(letter) for letter in "I need it: calculator(1*3)->"]
    assert len(right.steps[1].metrics.logprobs) == right.steps[1].metrics.completion_tokens
    assert right.final_metrics.total_prompt_tokens == 22
    assert right.final_metrics.total_cost_usd == 0.5
    assert right.final_metrics.extra["reward"] == 2.0
    assert bad.steps[1].message == "calculator(3*"
    assert bad.steps[1].tool_calls is None
    assert bad.steps[1].observation.results[0].source_call_id is None
    assert bad.steps[1].observation.results[0].extra["status"] == "malformed"


def test_trajectories_may_be_lines_of_one_file_and_nothing_else(tmp_path):
    export(records(1), INLINE, "atif", tmp_path / "rows.jsonl")
    assert len([AtifTrajectory.model_validate(row) for row in lines(tmp_path / "rows.jsonl")]) == 3
    with pytest.raises(ConfigError, match=r"a folder, or to a file that ends in \.jsonl"):
        export(records(1), INLINE, "atif", tmp_path / "rows.parquet")


# Bad input


def test_formats_files_and_options_that_cannot_be_are_config_errors(tmp_path):
    with pytest.raises(ConfigError, match="no format 'dpo' to export to; there are sft,"):
        export(records(1), INLINE, "dpo", tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match=r"ends in '.csv'; name a file that ends in .jsonl or .parquet"):
        export(records(1), INLINE, "sft", tmp_path / "rows.csv")
    with pytest.raises(ConfigError, match="margin must be 0 or more"):
        ExportOptions(margin=-1)
    with pytest.raises(ConfigError, match="not of 'some'"):
        ExportOptions(pairs="some")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        export(records(1), INLINE, "sft", tmp_path / "file" / "rows.jsonl")


def test_what_json_cannot_say_stops_the_export_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    export(records(1), INLINE, "sft", path)
    before = path.read_bytes()
    (made,) = records(1)
    first = replace(made.group.candidates[0], reward=Reward(math.nan))
    broken = replace(made, group=replace(made.group, candidates=(first, *made.group.candidates[1:])))
    with pytest.raises(DataError, match="cannot be written as JSON"):
        export([*records(2), broken], INLINE, "sft", path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_half_a_surrogate_pair_stops_the_export_with_a_data_error(tmp_path, suffix):
    (made,) = records(1)
    best = made.group.candidates[0]
    half = replace(best.episode, turns=(Turn(Completion(text="half \ud800")),))
    broken = replace(made, group=replace(made.group, candidates=(replace(best, episode=half),)))
    for format, options in (("rrhf", ExportOptions()), ("prompt_completion", ExportOptions(text=True))):
        with pytest.raises(DataError, match="surrogate"):
            export([broken], INLINE, format, tmp_path / f"rows{suffix}", options)
    assert list(tmp_path.iterdir()) == []


def test_features_let_datasets_read_json_lines_whose_rows_differ_later_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    export(records(), INLINE, "sft", path)
    loaded = load(path, features=features("sft"))
    assert loaded.features == features("sft")
    assert [_rounded(row) for row in loaded] == [_rounded(row) for row in lines(path)]


# The command


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folder as training leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = {
        "recipe": "trice",
        "name": "a-run",
        "tasks": {"kind": "arithmetic"},
        "cloning": {"steps": 1},
        "sources": [{"name": "own", "policy": "live"}],
        "improvement": {"rounds": 1, "tasks_per_round": 1, "batch_size": 1},
    }
    (folder / "config.resolved.yaml").write_text(yaml.safe_dump(config))
    one_tool = [
        replace(each, group=replace(each.group, task=replace(each.group.task, tools=("calculator",))))
        for each in records(3)
    ]
    with Log(folder / "groups" / "improve.jsonl", RoundGroup) as log:
        log.append(one_tool)
    with Log(folder / "evaluation" / "final.jsonl", Group) as log:
        log.append(
            Group(each.group.task, tuple(candidate.episode for candidate in each.group.candidates)) for each in one_tool
        )
    return folder


def command(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_the_command_exports_a_runs_groups(run, tmp_path, capsys):
    command("export", run, "preference", tmp_path / "rows.jsonl", "--pairs", "all", "--margin", "1.5")
    assert len(lines(tmp_path / "rows.jsonl")) == 3
    assert "3 rows of 3 groups" in capsys.readouterr().out
    command("export", run, "skyrl", tmp_path / "rows.parquet", "--env-class", "sums")
    assert [row["env_class"] for row in load(tmp_path / "rows.parquet")] == ["sums"] * 3


def test_the_command_ranks_the_attempts_of_an_evaluation_as_the_run_does(run, tmp_path):
    command("export", run / "evaluation" / "final.jsonl", "ranked", tmp_path / "rows.jsonl")
    rows = lines(tmp_path / "rows.jsonl")
    assert [row["candidates"][0]["source"] for row in rows] == ["good"] * 3
    assert rows[0]["candidates"][0]["parts"]["correct"] == 1.0


def test_a_damaged_line_is_named_and_the_rest_exported(run, tmp_path, capsys):
    log = run / "groups" / "improve.jsonl"
    log.write_bytes(log.read_bytes().replace(b"What is 1", b"What is 7"))
    command("export", run, "sft", tmp_path / "rows.jsonl")
    assert [row["id"] for row in lines(tmp_path / "rows.jsonl")] == ["task-0", "task-2"]
    assert "improve.jsonl:2 is damaged" in capsys.readouterr().err


def test_what_is_no_run_or_has_no_groups_is_a_data_error(run, tmp_path):
    with pytest.raises(DataError, match="is not a run"):
        command("export", tmp_path, "sft", tmp_path / "rows.jsonl")
    (run / "groups" / "improve.jsonl").unlink()
    with pytest.raises(DataError, match="has no groups yet"):
        command("export", run, "sft", tmp_path / "rows.jsonl")


def _all(row: dict) -> list[dict]:
    return [message for name in ("messages", "completion", "chosen", "rejected") for message in row.get(name, ())]


def _rounded(value: Any) -> Any:
    """The readers of ``datasets`` keep ten digits of a number."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 8) if isinstance(value, float) else value


def test_a_setting_says_what_a_task_may_call():
    setting = Setting(name="a", format=INLINE.format, catalog=CATALOG)
    assert [tool["function"]["name"] for tool in setting.tools(task(0, tools=("lookup",)))] == ["lookup"]
