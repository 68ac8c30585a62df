import dataclasses
import datetime
import itertools
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from executors.content import as_text, cut
from tests.executors.effort import effort


class Colour(Enum):
    RED = 1


class Place(BaseModel):
    city: str
    since: datetime.date


@dataclasses.dataclass
class Point:
    x: int
    y: float


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (2.5, "2.5"),
        (float("nan"), "nan"),
        ({"a": [1, (2, "é")], 3: None}, '{"a": [1, [2, "é"]], "3": null}'),
        ({"b", "a"}, '["a", "b"]'),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        ({"raw": b"\xff"}, '{"raw": "\\\\xff"}'),
        (Point(1, 2.0), '{"x": 1, "y": 2.0}'),
        (Place(city="Rome", since=datetime.date(2020, 1, 2)), '{"city": "Rome", "since": "2020-01-02"}'),
        (np.float64(0.5), "0.5"),
        (np.arange(3), "[0, 1, 2]"),
        (Path("/tmp/x"), "/tmp/x"),
        (Colour.RED, "Colour.RED"),
        (datetime.timedelta(days=1), "1 day, 0:00:00"),
        (iter(["a", "b"]), "ab"),
        (iter([1, "b"]), '[1, "b"]'),
        ({"items": iter([1, 2])}, '{"items": [1, 2]}'),
        ([10**5000], '["an integer of 16610 bits"]'),
        (type, "<class 'type'>"),
    ],
)
def test_every_value_has_its_text(value, text):
    assert as_text(value, 1000) == text


def test_a_long_text_is_cut_and_says_how_long_it_was():
    assert cut("x" * 9, 9) == "x" * 9
    assert cut("x" * 10, 9) == "x" * 9 + "... [cut, 10 characters]"
    assert as_text(["é" * 30], 5) == '["ééé... [cut, 34 characters]'
    assert as_text(["x" * 100_000], 5) == '["xxx... [cut, over 5 characters]'
    assert as_text(itertools.repeat("ab"), 5) == "ababa... [cut, over 5 characters]"


def test_halves_of_surrogate_pairs_are_written_out():
    assert cut("a\ud800b", 10) == "a\\ud800b"
    assert as_text({"a": "\udfff"}, 99) == '{"a": "\\udfff"}'
    assert cut("é😀", 10) == "é😀"


def test_what_never_ends_or_holds_itself_is_bounded_in_time():
    loop: list[object] = []
    loop.append(loop)
    wide: object = "x"
    for _ in range(40):
        wide = [wide] * 1000
    with effort(seconds=2):
        assert as_text(itertools.repeat(""), 100).startswith("... [cut, over")
        assert as_text(itertools.count(), 100).startswith("[0, 1, 2, ")
        assert as_text({"n": itertools.count()}, 100).startswith('{"n": [0, 1, 2, ')
        assert "nested too deeply" in as_text(loop, 1000)
        assert len(as_text(wide, 100)) < 200
        assert len(as_text("x" * 10**7, 100)) < 200
        assert len(as_text({str(i): i for i in range(10**5)}, 100)) < 200
