import asyncio
import json
from dataclasses import replace

import pytest

from executors.corpus.composition import compose
from executors.corpus.entries import Entry
from executors.corpus.toolset import GET_DETAILS, toolset
from executors.errors import DataError
from executors.openapi.tools import read_openapi
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ScriptedUser
from executors.types import Observation, ToolCall
from rl.data.segments import Segments, example, first_call, read_segments, refusal, segments, write_segments
from rl.data.toolalpaca import Instance, read_instances, write_instances
from rl.models.tiny import build_tokenizer
from rollouts.instances import CorpusFormat, generate
from rollouts.instructions import planned_instructions
from rollouts.plans import Planner
from rollouts.types import Completion, Episode, StopReason, Turn
from tests.rl.chat_tokenizers import tokenizer_with

FORMAT = CorpusFormat()


@pytest.fixture(scope="module")
def played():
    api = read_openapi(compose(Entry(name="Tunes", description="Songs", category="Music"), 1))
    backend = Simulation(api)
    asked = planned_instructions("Tunes", Planner("Tunes", api.operations), 8)
    groups = asyncio.run(generate("Tunes", asked, backend))
    specs = [tool.spec for tool in toolset(backend, ScriptedUser())]
    return groups, specs


def test_segments_alternate_and_end_with_the_response(played):
    groups, specs = played
    for group in groups:
        row = segments(group.task, group.episodes[0], specs, FORMAT)
        assert row.learned == (False, *([True, False] * len(group.episodes[0].calls)), True)
        assert row.texts[0].endswith(f"USER: {group.task.prompt}\nASSISTANT Thought: ")
        assert row.texts[1].endswith("\nASSISTANT Observation: ")
        assert row.texts[2].startswith(group.episodes[0].observations[0].content)
        assert row.texts[-1].endswith(f"\nASSISTANT Response: {group.episodes[0].answer}")
        assert row.texts[0].index(GET_DETAILS) < row.texts[0].index(specs[1].name)


@pytest.mark.parametrize("kind", ["bytes", "qwen3", "llama3"])
def test_the_mask_covers_the_learned_segments_to_the_token_for_any_tokenizer(played, kind):
    groups, specs = played
    rows = [segments(group.task, group.episodes[0], specs, FORMAT) for group in groups[:4]]
    texts = tuple(row.text for row in rows)
    tokenizer = (
        build_tokenizer(texts, vocab_size=500, max_length=4096) if kind == "bytes" else tokenizer_with(kind, texts)
    )
    for row in rows:
        made = example("one", row, tokenizer)
        candidate = made.rows[0]
        learned = [id for id, mark in zip(candidate.ids[:-1], candidate.mask[:-1], strict=True) if mark]
        wanted = "".join(text for text, mark in zip(row.as_played().texts, row.learned, strict=True) if mark)
        assert tokenizer.decode(learned) == wanted
        assert tokenizer.decode([*made.prompt, *candidate.ids[:-1]]) == row.text


def test_moving_blanks_changes_no_text(played):
    groups, specs = played
    row = segments(groups[0].task, groups[0].episodes[0], specs, FORMAT)
    assert row.as_played().text == row.text
    assert row.as_played().texts[0] == FORMAT.opening(groups[0].task, specs)


def test_rows_are_written_and_read_without_a_change(played, tmp_path):
    groups, specs = played
    rows = [segments(group.task, group.episodes[0], specs, FORMAT) for group in groups]
    write_segments(tmp_path / "sft.json", rows)
    assert read_segments(tmp_path / "sft.json") == rows
    (tmp_path / "bad.json").write_text(json.dumps([[["a"], [True, False]]]))
    with pytest.raises(DataError, match="row 1: a row is"):
        read_segments(tmp_path / "bad.json")


def test_instances_are_written_and_read_without_a_change(played, tmp_path):
    groups, _ = played
    made = [Instance(task=group.task, episode=group.episodes[0]) for group in groups]
    write_instances(tmp_path / "a.json", made)
    again = read_instances(tmp_path / "a.json")
    write_instances(tmp_path / "b.json", again)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert [one.episode.answer for one in again] == [group.episodes[0].answer for group in groups]
    assert [one.episode.calls for one in again] == [group.episodes[0].calls for group in groups]


def _episode(turns: int, tool: str = "f", stop: StopReason = "answer"):
    call = Turn(Completion(text="x"), (ToolCall(tool, {}),), (Observation("seen"),))
    last = (Turn(Completion(text="\nASSISTANT Response: done")),) if stop == "answer" else ()
    answer = "done" if stop == "answer" else None
    turns_made = (*[call] * turns, *last)
    return Episode(task_id="t", source="s", policy="p", version=0, turns=turns_made, answer=answer, stop=stop)


@pytest.mark.parametrize(
    ("episode", "why"),
    [
        (_episode(0), "no steps"),
        (_episode(6), "more than 5 steps"),
        (_episode(2, GET_DETAILS), "only getDetails"),
        (_episode(2, stop="turn_limit"), "no answer"),
        (_episode(5), ""),
    ],
)
def test_what_is_not_learned_from_is_told_why(episode, why):
    assert refusal(episode) == why


def test_a_hint_is_cut_from_the_request(played):
    groups, specs = played
    hinted = replace(groups[0].task, prompt=f"{groups[0].task.prompt}\nHint: call nothing")
    assert "Hint:" not in segments(hinted, groups[0].episodes[0], specs, FORMAT).text


def test_a_first_call_alone_stands_behind_the_users_words(played):
    groups, specs = played
    for group in groups:
        row = segments(group.task, group.episodes[0], specs, FORMAT)
        short = first_call(row, FORMAT)
        assert short.texts == (f"USER: {group.task.prompt}\nASSISTANT Thought: ", row.texts[1])
        assert short.learned == (False, True)


def test_segments_and_marks_are_as_many():
    with pytest.raises(DataError, match="2 segments have 1 marks"):
        Segments(("a", "b"), (True,))
