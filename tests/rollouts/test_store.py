import pytest

from executors.errors import DataError
from executors.types import MalformedCall, Observation, ToolCall
from rollouts.store import Log
from rollouts.types import Completion, Episode, Group, Task, Turn


def made(number: int) -> Group:
    turns = (
        Turn(
            Completion(text="é(", token_ids=(1, 2), mask=(True, False), logprobs=(-0.5, -1.0), tokenizer="f"),
            MalformedCall("é(", "cut"),
            Observation("cut", "bad_call", 0.1),
        ),
        Turn(Completion(text="c()"), ToolCall("c", {"a": [1, {"b": None}]}), Observation("1")),
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
    log = Log(tmp_path / "log.jsonl", Group)
    log.append([made(1), made(2)])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-7])
    assert list(log.read()) == [made(1)]
    log.append([made(3)])
    assert list(log.read()) == [made(1), made(3)]


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    log = Log(tmp_path / "log.jsonl", Group)
    log.append([made(1), made(2)])
    log.path.write_bytes(log.path.read_bytes().replace(b'"t1"', b'"t9"'))
    with pytest.raises(DataError, match=r"log.jsonl:1 is damaged"):
        list(log.read())


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert list(Log(tmp_path / "none.jsonl", Group).read()) == []


def test_a_torn_line_of_any_length_is_cut_at_its_beginning(tmp_path):
    log = Log(tmp_path / "log.jsonl", Group)
    log.append([made(1)])
    with log.path.open("ab") as file:
        file.write(b"0" * (3 << 20))
    log.append([made(2)])
    assert list(log.read()) == [made(1), made(2)]
