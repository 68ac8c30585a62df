import pytest

from executors.errors import ToolError
from executors.tools.text import (
    MAX_CHARS,
    change_case,
    count_occurrences,
    count_text,
    find_numbers,
    replace_text,
    reverse_text,
    sort_lines,
    text,
)
from tests.executors.effort import effort


def test_a_text_is_counted():
    said = "Two words. And more!\nÉté 12"
    assert [count_text(said, what) for what in ("words", "characters", "letters", "lines", "sentences")] == [
        6,
        27,
        18,
        2,
        3,
    ]
    assert [count_text("", what) for what in ("words", "characters", "letters", "lines", "sentences")] == [0] * 5


def test_a_point_within_a_number_ends_no_sentence():
    assert count_text("It has 3.5 m... Really?! Yes", "sentences") == 3
    assert count_text("你好。再见！", "sentences") == 2


def test_parts_are_counted():
    assert count_occurrences("Strawberry", "r") == 3
    assert count_occurrences("Strawberry", "S") == 1
    assert count_occurrences("Ss", "s", ignore_case=False) == 1
    assert count_occurrences("aaaa", "aa") == 2
    with pytest.raises(ToolError, match="is empty"):
        count_occurrences("a", "")


def test_numbers_are_found():
    assert find_numbers("3 of 1,200.50 (-7%), .5 and 3e8; v2 10kg 1.2.3") == "3, 1200.50, -7, .5, 3e8, 10, 1.2"
    assert find_numbers("1,234,5678 and 12,3") == "1234, 5678, 12, 3"
    assert find_numbers("none") == "the text has no numbers"


def test_the_case_is_changed():
    assert change_case("o'neil's élan", "upper") == "O'NEIL'S ÉLAN"
    assert change_case("ÉLAN", "lower") == "élan"
    assert change_case("it's o'neil, OK", "title") == "It's O'neil, Ok"
    assert change_case("hELLO there", "sentence") == "Hello there"


def test_parts_are_replaced():
    assert replace_text("a-b-c", "-", "") == "abc"
    with pytest.raises(ToolError, match="'x' does not occur"):
        replace_text("abc", "x", "y")
    with pytest.raises(ToolError, match="longer than 100,000"):
        replace_text("a" * 1000, "a", "b" * 1000)
    with pytest.raises(ToolError, match="is empty"):
        replace_text("abc", "", "y")


def test_a_text_is_reversed_with_its_accents_on_their_letters():
    assert reverse_text("abc") == "cba"
    assert reverse_text("e\u0301a") == "ae\u0301"
    assert reverse_text("one two  three", by="words") == "three two one"
    assert reverse_text("one\ntwo", by="lines") == "two\none"


def test_lines_are_sorted():
    assert sort_lines("b\nA\na\nb") == "A\na\nb\nb"
    assert sort_lines("b\nA\nb", descending=True, unique=True) == "b\nA"
    assert sort_lines("10 x\n9 y\nnone\n1,000", numeric=True) == "9 y\n10 x\n1,000\nnone"


@pytest.mark.parametrize("one", text, ids=lambda one: one.name)
@pytest.mark.parametrize("letters", ["x", "1,111,", "-", ".", "1.", "a.", "é\u0301", "\n", "9"])
def test_a_text_without_end_is_refused_and_the_longest_one_takes_no_time(one, letters):
    rest = {
        "change_case": {"case": "title"},
        "count_occurrences": {"part": "x"},
        "replace_text": {"old": "x", "new": ""},
    }
    long = (letters * MAX_CHARS)[: MAX_CHARS - 1] + "x"
    with effort(seconds=2):
        one(text=long, **rest.get(one.name, {}))
    with pytest.raises(ToolError, match="too long"):
        one(text=long + "yy", **rest.get(one.name, {}))
