from dataclasses import replace

import pytest

from executors.types import Observation
from rewards.correctness import correctness, read_number, read_number_as_trice, right_as_trice
from rollouts.types import Task
from tests.rewards.attempts import attempt


@pytest.mark.parametrize(
    ("text", "fixed", "as_published"),
    [
        ("-5", -5, 5),
        ("1,234,567", 1234567, 567),
        ("1,200.50", 1200.5, 50),
        ("<<76/3=25>>25", 25, 25),
        ("about 42.", 42, 42),
        ("no number", None, 0.0),
        ("e2060", 2060, 2060),
        ("", None, 0.0),
        ("it is .5", 0.5, 5),
    ],
)
def test_numbers_are_read_right_and_the_published_quirks_are_kept_apart(text, fixed, as_published):
    assert read_number(text) == fixed
    assert read_number_as_trice(text) == as_published


@pytest.mark.parametrize(
    ("match", "answer", "expected", "right"),
    [
        ("numeric", "42.0", "42", 1.0),
        ("numeric", "43", "42", 0.0),
        ("numeric", "none", "42", 0.0),
        ("exact", " Paris ", "paris", 1.0),
        ("exact", "in Paris", "paris", 0.0),
        ("contained", "in Paris", "paris", 1.0),
        ("trice", "-5", "5", 1.0),
        ("mixed", "it is 15", "5", 0.0),
        ("mixed", "it is 5.0", "5", 1.0),
        ("mixed", "in Paris", "paris", 1.0),
    ],
)
def test_answers_match_by_the_configured_rule(match, answer, expected, right):
    task = Task(id="t", prompt="?", answer=expected)
    assert correctness(task, attempt(answer=answer), match) == right


def test_any_alias_will_do_and_no_answer_is_wrong():
    task = Task(id="t", prompt="?", answer="United States", aliases=("USA", "US"))
    assert correctness(task, attempt(answer="USA"), "exact") == 1.0
    assert correctness(task, attempt(answer=None), "exact") == 0.0


@pytest.mark.parametrize(
    ("expected", "answer", "published", "fair"),
    [
        ("-5", "it is -5", False, True),
        ("5", "it is -5", True, False),
        ("1234567", "1,234,567", False, True),
        ("567", "1,234,567", True, False),
        ("1200.5", "1,200.50", False, True),
        ("0", "no idea", True, False),
        ("3", "3.004", True, False),
    ],
)
def test_a_direct_number_is_judged_by_both_rules(expected, answer, published, fair):
    task, made = Task(id="t", prompt="?", answer=expected), attempt(answer=answer)
    assert (right_as_trice(task, made), correctness(task, made) == 1.0) == (published, fair)


def test_of_a_call_the_published_rule_takes_what_the_tool_came_to():
    made = attempt(answer="2", called=True)  # its calculator says 1
    assert right_as_trice(Task(id="t", prompt="?", answer="1"), made)
    assert not right_as_trice(Task(id="t", prompt="?", answer="2"), made)
    failed = replace(made, turns=(replace(made.turns[0], observations=(Observation("/ 0", "tool_error"),)),))
    assert right_as_trice(Task(id="t", prompt="?", answer="0"), failed)
    assert not right_as_trice(Task(id="t", prompt="?", answer="1"), failed)


def test_a_text_has_to_say_an_alias_within_twenty_words_unless_a_tool_was_called():
    task = Task(id="t", prompt="?", answer="Peru", aliases=("Republic of Peru",))
    late = " ".join(["well"] * 20) + " Peru"
    assert right_as_trice(task, attempt(answer="it is peru, I think"))
    assert not right_as_trice(task, attempt(answer=late))
    assert right_as_trice(task, attempt(answer=late, called=True))
    multilingual = replace(task, labels={"task": "MLQA"})
    assert not right_as_trice(multilingual, attempt(answer=late, called=True))
    assert not right_as_trice(task, attempt(answer=None))
