import pytest
from pydantic import ValidationError

from executors.types import MalformedCall, Observation, ToolCall
from rewards.ranking import CallLadder, TriceLadder, WeightedSum
from rollouts.types import Completion, Episode, Group, Task, Turn
from tests.rewards.attempts import attempt, group


def scores(ladder, made):
    return [reward.value for reward in ladder.rewards(made)]


@pytest.mark.parametrize(
    ("gold_called", "attempts", "expected"),
    [
        (True, [("57", True), ("25", True), ("54", False)], [20, 10, 15]),
        (True, [("57", True), ("57", False), ("54", False)], [20, 15, 10]),
        (False, [("25", True), ("54", True), ("60", False)], [5, 15, 10]),
        (True, [("57", False), ("25", True), ("54", False)], [15, 5, 10]),
    ],
)
def test_as_coded_ladder_gives_the_published_scores(gold_called, attempts, expected):
    gold = attempt("gold", "57", called=gold_called, policy="gold")
    others = [attempt(f"model{i}", answer, called=called) for i, (answer, called) in enumerate(attempts)]
    ladder = TriceLadder(mode="as_coded", match="trice")
    assert scores(ladder, group(gold, *others)) == [20, *expected]


def test_as_coded_ladder_gives_the_scores_of_the_published_example():
    made = group(
        attempt("gold", "57.0", called=True, policy="gold"),
        attempt("chatgpt", "57.0", called=True),
        attempt("davinci", "57.0", called=True),
        attempt("vicuna", "25.0", called=True),
        attempt("alpaca", "54.0"),
        answer="57.0",
    )
    ladder = TriceLadder(mode="as_coded", match="trice", unchecked=("chatgpt",))
    assert scores(ladder, made) == [20, 20, 20, 10, 15]


def test_as_coded_ladder_gives_all_wrong_words_the_same_score():
    made = group(
        attempt("gold", "Paris", called=True, policy="gold"),
        attempt("a", "Rome", called=True),
        attempt("b", "Oslo"),
        attempt("c", "in Paris"),
        answer="Paris",
    )
    assert scores(TriceLadder(mode="as_coded", match="contained"), made) == [20, 10, 10, 15]


def test_paper_ladder_keeps_its_order_and_every_source_is_checked():
    made = group(
        attempt("gold", "57", called=True, policy="gold"),
        attempt("chatgpt", "1", called=True),
        attempt("true-yes", "57", called=True),
        attempt("true-no", "57"),
        attempt("false-yes", "25", called=True),
        attempt("false-no", "25"),
        attempt("cut", "57", malformed=True),
    )
    assert scores(TriceLadder(), made) == [20, 10, 20, 15, 10, 5, 0]


def test_weighted_sum_prefers_the_decision_that_the_policys_own_direct_answer_asks_for():
    direct = attempt("forced-direct", "57", force="direct")
    ranked = WeightedSum().rank(group(direct, attempt("a", "57", called=True), attempt("b", "3", called=True)))
    assert [candidate.episode.source for candidate in ranked.candidates] == ["forced-direct", "a", "b"]
    assert [candidate.reward.value for candidate in ranked.candidates] == pytest.approx([1.1, 0.9, 0.1])

    wrong = attempt("forced-direct", "3", force="direct")
    lucky = attempt("b", "57")
    ranked = WeightedSum().rank(group(wrong, attempt("a", "57", called=True), lucky))
    assert [candidate.episode.source for candidate in ranked.candidates] == ["a", "b", "forced-direct"]


def test_need_is_not_judged_by_another_policys_direct_answer_nor_by_a_sampled_one():
    peer = attempt("peer-direct", "3", policy="peer", force="direct")
    sampled = attempt("hot-direct", "3", force="direct", temperature=1.0)
    made = group(peer, sampled, attempt("a", "57"), needs_tool=False)
    assert WeightedSum().rank(made).candidates[0].reward.parts["selective"] == 1.0


def test_malformed_ranks_below_wrong():
    made = group(attempt("wrong", "3"), attempt("cut", "3", malformed=True))
    ranked = WeightedSum().rank(made)
    assert [candidate.episode.source for candidate in ranked.candidates] == ["wrong", "cut"]
    assert ranked.candidates[0].reward.value > ranked.candidates[1].reward.value


def test_ties_are_kept_and_failed_episodes_are_left_out_and_counted():
    made = group(attempt("a", "57"), attempt("b", "57"), attempt("down", None, stop="failed"))
    ranked = WeightedSum().rank(made)
    assert ranked.tied
    assert ranked.dropped == 1
    assert [candidate.episode.source for candidate in ranked.candidates] == ["a", "b"]


def test_call_ladder_orders_malformed_wrong_tool_wrong_arguments_correct():
    task = Task(id="t", prompt="?", gold=ToolCall("add", {"a": 1}))

    def calling(source, call):
        turn = Turn(Completion(text="x"), (call,), (Observation(""),))
        return Episode(
            task_id="t", source=source, policy=source, version=0, turns=(turn,), answer=None, stop="turn_limit"
        )

    made = Group(
        task,
        (
            calling("malformed", MalformedCall("x", "bad")),
            calling("tool", ToolCall("sub", {"a": 1})),
            calling("arguments", ToolCall("add", {"a": 2})),
            calling("correct", ToolCall("add", {"a": "1", "extra": 0})),
        ),
    )
    assert scores(CallLadder(), made) == [0, 1, 2, 3]
    assert scores(CallLadder(extra_keys="reject"), made) == [0, 1, 2, 2]


def test_what_environments_say_counts_where_it_is_given_a_weight():
    made = group(attempt("low", "1", environment_reward=0.2), attempt("high", "1", environment_reward=0.9))
    assert WeightedSum().rank(made).tied
    ranked = WeightedSum(environment=2.0).rank(made)
    assert [candidate.episode.source for candidate in ranked.candidates] == ["high", "low"]
    assert ranked.candidates[0].reward.parts["environment"] == 0.9


def test_a_yes_is_no_weight():
    with pytest.raises(ValidationError, match="wellformed: a number is wanted, got True"):
        WeightedSum.model_validate({"wellformed": True})
    assert WeightedSum.model_validate({"wellformed": 1}).wellformed == 1.0
