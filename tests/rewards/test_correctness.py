import pytest

from rewards.correctness import correctness, read_number, read_number_as_trice
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
    ],
)
def test_answers_match_by_the_configured_rule(match, answer, expected, right):
    task = Task(id="t", prompt="?", answer=expected)
    assert correctness(task, attempt(answer=answer), match) == right


def test_any_alias_will_do_and_no_answer_is_wrong():
    task = Task(id="t", prompt="?", answer="United States", aliases=("USA", "US"))
    assert correctness(task, attempt(answer="USA"), "exact") == 1.0
    assert correctness(task, attempt(answer=None), "exact") == 0.0
