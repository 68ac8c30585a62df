"""The gate: a policy that lost a tool never takes the place of the one in use."""

import json

import pytest

from executors.errors import DataError
from rl.recipes.publication import Publication


def checkpoints(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
    return [folder / name for name in names]


def test_a_policy_that_lost_a_tool_is_withheld_and_the_one_before_stays(tmp_path):
    first, worse, better = checkpoints(tmp_path, "a/step-1", "b/step-1", "c/step-1")
    gate = Publication(tmp_path, tolerance=0.1)
    assert gate.current is None
    assert gate.offer("first", first, {"add": 0.9, "sum": 0.4}) == {}
    assert gate.current == first
    missed = gate.offer("worse", worse, {"add": 0.7, "sum": 0.9, "new": 1.0})
    assert missed == {"add": pytest.approx(0.2)} and gate.current == first
    assert gate.told() == {
        "name": "first",
        "tools": {"add": 0.9, "sum": 0.4},
        "refused": [{"name": "worse", "lost": {"add": 0.2}}],
    }
    assert gate.offer("worse", worse, {"sum": 0.4}).keys() == {"add"}  # what is not measured counts as lost
    assert len(gate.told()["refused"]) == 1 and gate.current == first
    assert gate.offer("better", better, {"add": 0.85, "sum": 0.4, "new": 0.5}) == {}
    assert gate.current == better
    assert gate.offer("worse", worse, {"add": 0.9, "sum": 0.9}).keys() == {"new"}  # what was learned since is old now
    assert gate.current == better
    told = gate.told()
    assert gate.offer("worse", worse, {"add": 0.9, "sum": 0.9, "new": 0.6}) == {} and gate.told()["refused"] == []
    assert told["refused"] == [{"name": "worse", "lost": {"new": 0.5}}]


def test_a_fall_as_large_as_the_tolerance_is_borne(tmp_path):
    (first, after) = checkpoints(tmp_path, "a/step-1", "b/step-1")
    gate = Publication(tmp_path, tolerance=0.2)
    gate.offer("first", first, {"add": 13 / 15, "sum": 14 / 15})
    assert gate.offer("after", after, {"add": 10 / 15, "sum": 11 / 15}) == {}


def test_rounds_that_are_offered_again_are_judged_as_before(tmp_path):
    rounds = checkpoints(tmp_path, "a/step-1", "b/step-1")
    scores = [{"add": 1.0}, {"add": 0.9, "new": 1.0}]
    for _ in range(2):
        gate = Publication(tmp_path, tolerance=0.2)
        gate.forget()
        assert [gate.offer(str(n), path, scores[n]) for n, path in enumerate(rounds)] == [{}, {}]
        assert gate.current == rounds[1]


def test_what_is_in_use_is_a_link_that_moves_with_its_folder(tmp_path):
    (first,) = checkpoints(tmp_path / "run", "base/step-3")
    Publication(tmp_path / "run").offer("base", first, {})
    (tmp_path / "run").rename(tmp_path / "moved")
    assert Publication(tmp_path / "moved").current == tmp_path / "moved" / "base" / "step-3"


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "published.json").write_text("{")
    with pytest.raises(DataError, match=r"published\.json cannot be read"):
        Publication(tmp_path).told()
    (tmp_path / "published.json").write_text(json.dumps({"name": None, "tools": {}, "refused": []}))
    assert Publication(tmp_path).current is None
