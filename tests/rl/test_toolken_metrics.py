import json

import pytest

from rl.data.tasks.virtualhome import Scene
from rl.evaluation.toolken import (
    answer_of,
    answer_ratios,
    approximate,
    colliding,
    exact_match,
    judge_plan,
    legacy_answer,
    legacy_relation,
    legacy_rounding,
    plan_steps,
    relation,
    same_rounded,
)
from tests.executors.shared_data import shared


@pytest.mark.parametrize(
    ("text", "legacy", "ours"),
    [
        ("so #### 32.38", 32.38, 32.38),
        ("#### -7", 7.0, -7.0),
        ("#### 1,943 km", 1943.0, 1943.0),
        ("#### 3 or 4", 4.0, 3.0),
        ("#### 1e3", 3.0, 1000.0),
        ("no marker 5", 5.0, None),
        ("#### none", 0.0, None),
        ("#### .5", 0.5, 0.5),
        ("#### 1 #### 2", 2.0, 2.0),
    ],
)
def test_answers_are_read_as_published_and_as_they_are_written(text, legacy, ours):
    assert legacy_answer(text, "####") == legacy
    assert answer_of(text, "####") == ours


def test_the_three_comparisons_differ_where_they_should():
    assert exact_match(0.394, 0.3936) and not approximate(0.394, 0.3936)
    assert approximate(1000.9, 1000) and not exact_match(1000.9, 1000)
    assert approximate(-2.0, -2.001) and not approximate(2.0, -2.0)
    assert same_rounded(0.00123456, 0.001230001)
    assert not any(metric(None, 1.0) for metric in (exact_match, approximate, same_rounded))
    assert not approximate(float("inf"), 1.0)


@pytest.mark.parametrize(("value", "rounded"), [(3.14159, 3.14), (0.0284, 0.028), (0.1685, 0.17), (0.0, 0.0)])
def test_published_rounding_keeps_two_digits_behind_the_zeros(value, rounded):
    assert legacy_rounding(value) == pytest.approx(rounded)


def test_ratios_stand_side_by_side():
    ratios = answer_ratios(["#### -7", "#### 5"], ["-7", 5], "####")
    assert list(ratios["legacy_em"].parts) == [0.0, 1.0]
    assert list(ratios["em"].parts) == [1.0, 1.0]
    assert set(ratios) == {"legacy_em", "legacy_approx", "legacy_round", "em", "approx", "round"}


def test_the_published_relation_match_is_fooled_by_each_of_the_103_colliding_pairs():
    names = list(json.loads(shared("kamel", "func_dict.json").read_text()))
    pairs = colliding(names)
    assert len(pairs) == 103
    for gold, other in pairs:
        assert legacy_relation(f"The answer is <{other}>", gold, ()) == "relation"
        assert relation(other, f"The answer is <{other}>", gold, ()) == "false_relation"
        assert relation(gold, "", gold, ()) == "relation"


def test_the_published_answer_match_takes_a_digit_for_a_number():
    assert legacy_relation("in 1284", "P1", ["2"]) == "object"
    assert relation(None, "in 1284", "P1", ["2"]) == "nothing"
    assert relation(None, "there are 2.", "P1", ["2"]) == "object"
    assert legacy_relation("<P9>", "P1", ["2"]) == "false_relation"
    assert legacy_relation("who knows", "P1", ["2"]) == "nothing"


SCENE = Scene("office", frozenset({"desk", "phone"}))
VERBS = ("[WALK]", "[FIND]")


@pytest.mark.parametrize(
    ("plan", "fault", "grounded"),
    [
        ("[WALK] <desk> [FIND] <phone> [END]", None, True),
        ("[WALK] <desk> [WALK] <desk> [END]", None, True),
        ("[FIND] <desk> [FIND] <desk> [END]", "REPEATED", True),
        ("[WALK] <bed> [END]", "OBJ-NOT-FOUND", False),
        ("[FLY] <desk> [END]", "ACTION-NOT-FOUND", True),
        ("<desk> [WALK] [END]", "PARSE-ACTION", True),
        ("[WALK] [FIND] <desk> [END]", "NUM-PARAMS", True),
        ("[WALK] [END]", "NUM-PARAMS", True),
        ("[WALK] <desk>", "UNFINISHED", True),
    ],
)
def test_a_plan_is_legal_or_has_a_named_fault(plan, fault, grounded):
    verdict = judge_plan(plan.split(), SCENE, VERBS)
    assert (verdict.fault, verdict.grounded) == (fault, grounded)


def test_a_plan_is_cut_at_its_end_and_at_eight_lines():
    assert plan_steps("[WALK] <desk>\n\n[FIND] <phone>\n[END]\nmore") == ["[WALK] <desk>", "[FIND] <phone>"]
    assert len(plan_steps("\n".join("[WALK] <desk>" for _ in range(12)))) == 8
