import errno
import json
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import datasets
import pandas
import pyarrow.parquet
import pytest

from executors.types import MalformedCall, Observation, ToolCall
from rollouts.archive import compact, segments
from rollouts.store import Log, LogBrokenError, LogFullError, LogTakenError, append_json, damaged
from rollouts.types import Completion, Episode, Group, Task, Turn


def made(number: int) -> Group:
    turns = (
        Turn(
            Completion(text="é(", token_ids=(1, 2), mask=(True, False), logprobs=(-0.5, -1.0), tokenizer="f"),
            (MalformedCall("é(", "cut"),),
            (Observation("cut", "bad_call", 0.1),),
        ),
        Turn(Completion(text="c()"), (ToolCall("c", {"a": [1, {"b": None}]}),), (Observation("1"),)),
        Turn(Completion(text="Answer: 1")),
    )
    episode = Episode(
        task_id=f"t{number}", source="s", policy="p", version=3, turns=turns, answer="1", stop="answer", seed=2**52
    )
    task = Task(id=f"t{number}", prompt="?", answer="1", gold=ToolCall("c", {}), labels={"level": "easy"})
    return Group(task, (episode,))


def test_what_is_read_is_what_was_written(tmp_path):
    log = Log(tmp_path / "a" / "log.jsonl", Group)
    log.append([made(1), made(2)])
    log.append([made(3)])
    assert list(log.read()) == [made(1), made(2), made(3)]


def test_a_line_that_a_crash_cut_short_is_left_out_and_written_over(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, Group) as log:
        log.append([made(1), made(2)])
    path.write_bytes(path.read_bytes()[:-7])
    log = Log(path, Group)
    assert list(log.read()) == [made(1)]
    assert str(log.torn) == f"{path}:2 is damaged (a torn last line); it was left out"
    assert damaged([log]) == [log.torn]
    log.append([made(3)])
    assert list(log.read()) == [made(1), made(3)]
    assert log.damage == [] and log.torn is None


def test_a_flipped_byte_is_told_and_the_rest_is_read(tmp_path):
    log = Log(tmp_path / "log.jsonl", Group)
    log.append([made(1), made(2), made(3)])
    log.path.write_bytes(log.path.read_bytes().replace(b'"t2"', b'"t9"'))
    assert list(log.read()) == [made(1), made(3)]
    assert [damage.line for damage in log.damage] == [2]
    assert "log.jsonl:2 is damaged" in str(log.damage[0])


def test_no_mutation_of_a_log_is_taken_for_a_record(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, Group) as log:
        log.append([made(number) for number in range(5)])
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(300):
        place = generator.randrange(len(whole))
        mutated = bytearray(whole)
        kind = generator.choice(["flip", "cut", "zero"])
        if kind == "flip":
            mutated[place] ^= 1 << generator.randrange(8)
        elif kind == "cut":
            del mutated[place:]
        else:
            mutated[place : place + 64] = bytes(len(mutated[place : place + 64]))
        path.write_bytes(mutated)
        read = list(Log(path, Group).read())
        assert all(record in [made(number) for number in range(5)] for record in read)
        assert len(read) >= (whole[:place].count(b"\n") if kind == "cut" else 2)


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert list(Log(tmp_path / "none.jsonl", Group).read()) == []


def test_a_torn_line_of_any_length_is_cut_at_its_beginning(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, Group) as log:
        log.append([made(1)])
    with path.open("ab") as file:
        file.write(b"0" * (3 << 20))
    log = Log(path, Group)
    log.append([made(2)])
    assert list(log.read()) == [made(1), made(2)]


def test_a_second_writer_is_refused_at_once(tmp_path):
    first, second = Log(tmp_path / "log.jsonl", Group), Log(tmp_path / "log.jsonl", Group)
    first.append([made(1)])
    with pytest.raises(LogTakenError, match="another process"):
        second.append([made(2)])
    first.close()
    second.append([made(2)])
    assert list(second.read()) == [made(1), made(2)]


class Crowded:
    """A file on a disk that has room for a number of bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        taken = min(len(data), self.room)
        self.room -= taken
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(bytes(data[:taken]))


def test_a_full_disk_keeps_what_was_there_and_takes_the_rest_later(tmp_path):
    log = Log(tmp_path / "log.jsonl", Group)
    log.append([made(1)])
    log._file = Crowded(log._file, 100)
    with pytest.raises(LogFullError, match=r"the disk is full: .*log\.jsonl needs \d+ more bytes"):
        log.append([made(2), made(3)])
    assert list(log.read()) == [made(1)]
    log._file.room = 1 << 20
    log.append([made(2), made(3)])
    assert list(log.read()) == [made(1), made(2), made(3)]


def test_nothing_is_written_after_the_disk_failed_to_confirm(tmp_path, monkeypatch):
    log = Log(tmp_path / "log.jsonl", Group)

    def refuse(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(LogBrokenError, match="could not be confirmed"):
            log.append([made(1)])
    with pytest.raises(LogBrokenError):
        log.append([made(2)])


def test_full_segments_become_parquet_and_are_read_in_order(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, Group, segment_bytes=2000) as log:
        for number in range(12):
            log.append([made(number)])
    assert [segment.suffix for segment in segments(path)] == [".parquet"] * len(segments(path))
    assert len(segments(path)) >= 3
    assert list(Log(path, Group).read()) == [made(number) for number in range(12)]


def test_a_segment_that_a_kill_left_uncompacted_is_read_as_it_is(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, Group) as log:
        log.append([made(1)])
    path.rename(tmp_path / "log.00000.jsonl")
    with Log(path, Group) as log:
        log.append([made(2)])
    assert list(Log(path, Group).read()) == [made(1), made(2)]
    compact(tmp_path / "log.00000.jsonl")
    assert list(Log(path, Group).read()) == [made(1), made(2)]


def sealed(path, numbers) -> Path:
    """The first of a log's segments, compacted."""
    with Log(path, Group) as log:
        log.append([made(number) for number in numbers])
    path.rename(path.with_suffix(".00000.jsonl"))
    return compact(path.with_suffix(".00000.jsonl"))


def test_a_compacted_segment_that_was_changed_is_told(tmp_path):
    log = Log(tmp_path / "log.jsonl", Group)
    target = sealed(log.path, [1, 2])
    table = pyarrow.parquet.read_table(target)
    pyarrow.parquet.write_table(table.slice(1).replace_schema_metadata(table.schema.metadata), target)
    assert list(log.read()) == [made(2)]
    assert str(log.damage[0]).startswith(f"{target} is damaged (its lines are not those that were sealed")


def test_the_rest_is_read_of_a_compacted_segment_with_flipped_bytes(tmp_path):
    log = Log(tmp_path / "log.jsonl", Group)
    target = sealed(log.path, range(600))  # two parts, of 512 lines and of 88
    log.append([made(1000)])
    whole = target.read_bytes()
    column = pyarrow.parquet.ParquetFile(target).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    target.write_bytes(whole[: start + 40] + bytes(200) + whole[start + 240 :])
    read = list(log.read())
    assert read[-89:] == [made(number) for number in (*range(512, 600), 1000)]
    assert all(record in [made(number) for number in range(512)] for record in read[:-89])
    assert log.damage and log.damage[-1].path == target
    target.write_bytes(whole[:-300])
    assert list(log.read()) == [made(1000)]
    assert "cannot be opened" in str(log.damage[0])


def test_a_segment_that_is_missing_is_not_replaced_by_the_next(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, Group, segment_bytes=2000) as log:
        for number in range(12):
            log.append([made(number)])
        last = segments(path)[-1].name
        segments(path)[0].unlink()
        left = list(log.read())
        log.append([made(number) for number in range(12, 14)])
        assert segments(path)[-1].name > last
        assert list(log.read()) == [*left, made(12), made(13)]


def test_what_a_killed_compaction_left_is_swept(tmp_path):
    half = tmp_path / ".log.00000.parquet.17"
    half.write_bytes(b"PAR1")
    with Log(tmp_path / "log.jsonl", Group) as log:
        log.append([made(1)])
    assert not half.exists()


@pytest.mark.parametrize(
    "completion",
    [
        Completion(text="half a pair: \ud83d"),
        Completion(text="x", token_ids=(1,), mask=(True,), logprobs=(-math.inf,), top_logprobs=(((1, -math.inf),),)),
    ],
)
def test_what_json_has_no_plain_word_for_is_read_as_it_was_written(tmp_path, completion):
    episode = replace(made(1).episodes[0], turns=(Turn(completion),))
    log = Log(tmp_path / "log.jsonl", Group)
    log.append([Group(made(1).task, (episode,)), made(2)])
    assert list(log.read()) == [Group(made(1).task, (episode,)), made(2)]
    assert log.damage == []
    assert len([json.loads(line) for line in log.path.read_text().splitlines()]) == 2


def test_pandas_and_datasets_read_a_log(tmp_path):
    path = tmp_path / "log.jsonl"
    with Log(path, Group) as log:
        log.append([made(1), made(2)])
    assert [task["id"] for task in pandas.read_json(path, lines=True)["task"]] == ["t1", "t2"]
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["episodes"][0]["turns"][1]["calls"][0]["arguments"] for row in rows] == [{"a": [1, {"b": None}]}] * 2
    path.rename(tmp_path / "log.00000.jsonl")
    frame = pandas.read_parquet(compact(tmp_path / "log.00000.jsonl"))
    assert [json.loads(task)["id"] for task in frame["task"]] == ["t1", "t2"]


def test_a_line_of_metrics_stays_apart_from_one_that_a_crash_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_json(path, {"step": 0})
    path.write_bytes(path.read_bytes() + b'{"step"')
    append_json(path, {"step": 1})
    append_json(path, {"step": 2})
    assert path.read_text() == '{"step": 0}\n{"step"\n{"step": 1}\n{"step": 2}\n'
