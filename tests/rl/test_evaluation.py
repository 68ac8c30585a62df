import json
import math
from dataclasses import replace

import pytest

from rewards.types import Candidate, RankedGroup, Reward
from rl.data.rounds import GROUPS as RANKED
from rl.data.rounds import RoundGroup
from rl.evaluation.evaluate import Selectivity, evaluate, summarise, write_summary
from rl.evaluation.intervals import Ratio, difference, figure, mean_over_seeds
from rl.evaluation.report import write_report
from rl.evaluation.seeds import pool_seeds, table
from rl.evaluation.selectivity import selectivity_ratios
from rl.run import Run
from rollouts.store import Log
from rollouts.types import Group, Task
from rollouts.worker import TooManyFailuresError
from tests.rewards.attempts import attempt


def question(number: int, *, called: bool, right: bool, direct_right: bool) -> Group:
    """A question with its three attempts; the one that calls is always right."""
    answer = "1"
    return Group(
        Task(id=f"t{number}", prompt=f"{number}?", answer=answer),
        (
            attempt("free", answer if right else "0", called=called),
            attempt("direct", answer if direct_right else "0", force="direct"),
            attempt("call", answer, called=True, force="call"),
        ),
    )


GROUPS = [
    question(0, called=True, right=True, direct_right=False),  # a call that was needed
    question(1, called=True, right=True, direct_right=True),  # needless
    question(2, called=False, right=False, direct_right=False),  # missed
    question(3, called=False, right=True, direct_right=True),  # rightly direct
]


def values(ratios) -> dict[str, float]:
    return {name: figure(ratio).value for name, ratio in ratios.items()}


def test_a_call_is_needed_where_the_policys_own_direct_answer_is_wrong():
    assert values(selectivity_ratios(GROUPS)) == pytest.approx(
        {
            "accuracy": 0.75,
            "decisions": 0.5,
            "needless": 0.5,
            "missed": 0.5,
            "malformed": 0.0,
            "call_rate": 0.5,
            "utility": 0.65,
            "failed_calls": 0.0,
            "need": 0.5,
            "true_yes": 0.5,
            "true_no": 0.25,
            "false_yes": 0.0,
            "false_no": 0.25,
            "accuracy_trice": 0.75,
        }
    )


def test_every_attempt_is_one_of_true_yes_true_no_false_yes_and_false_no():
    for source in ("free", "direct", "call"):
        found = values(selectivity_ratios(GROUPS, source))
        assert sum(found[name] for name in ("true_yes", "true_no", "false_yes", "false_no")) == 1.0
        assert found["true_yes"] + found["true_no"] == found["accuracy"]
        assert found["true_yes"] + found["false_yes"] == found["decisions"]


def test_figures_are_told_apart_by_data_set():
    labelled = [
        replace(group, task=replace(group.task, labels={"dataset": "odd" if number % 2 else "even"}))
        for number, group in enumerate(GROUPS)
    ]
    found = values(selectivity_ratios(labelled))
    assert (found["accuracy/even"], found["accuracy/odd"], found["accuracy"]) == (0.5, 1.0, 0.75)
    assert (found["need/even"], found["need/odd"]) == (1.0, 0.0)
    assert (found["missed/even"], found["needless/odd"]) == (0.5, 0.5)
    assert math.isnan(found["missed/odd"])
    assert not [name for name in selectivity_ratios(GROUPS) if "/" in name]


def test_always_call_and_always_direct_are_measured_on_the_same_attempts():
    measure = Selectivity()
    always_call = values(measure.ratios(GROUPS, "call"))
    assert (always_call["needless"], always_call["missed"], always_call["accuracy"]) == (1.0, 0.0, 1.0)
    always_direct = values(measure.ratios(GROUPS, "direct"))
    assert (always_direct["needless"], always_direct["missed"], always_direct["utility"]) == (0.0, 1.0, 0.5)


def test_intervals_hold_the_value_and_shrink_with_more_questions():
    few, many = figure(Ratio([1.0, 0.0] * 20)), figure(Ratio([1.0, 0.0] * 500))
    assert few.low < few.value == 0.5 < few.high
    assert many.high - many.low < (few.high - few.low) / 3
    assert figure(Ratio([1.0, 0.0] * 20)) == few


def test_a_ratio_over_nothing_is_no_number_and_json_says_null(tmp_path):
    empty = figure(Ratio([0.0, 0.0], [0.0, 0.0]))
    assert math.isnan(empty.value)
    run = Run(tmp_path)
    write_summary(run, {"start": {"needless": empty.as_json(), "n": 2}})
    assert json.loads((tmp_path / "evaluation" / "summary.json").read_text())["start"]["needless"]["value"] is None


def test_a_paired_difference_is_surer_than_an_unpaired_one():
    before = [float(i % 2) for i in range(200)]
    after = [max(value, float(i % 20 == 0)) for i, value in enumerate(before)]
    paired = difference([Ratio(after)], [Ratio(before)])
    assert paired.value == pytest.approx(0.05)
    assert paired.low > 0
    assert figure(Ratio(after)).low < figure(Ratio(before)).high


def test_over_seeds_the_mean_is_of_the_seeds_and_their_spread_widens_the_interval():
    same = mean_over_seeds([Ratio([1.0, 0.0] * 100)] * 3)
    apart = mean_over_seeds([Ratio([1.0] * 200), Ratio([0.0] * 200), Ratio([1.0, 0.0] * 100)])
    assert same.value == apart.value == 0.5
    assert apart.high - apart.low > same.high - same.low


def test_the_summary_sets_final_beside_start_and_every_baseline():
    start, final = selectivity_ratios(GROUPS), selectivity_ratios(GROUPS, "call")
    summary = summarise({"start": start, "final": final, "always_call": final}, 4, {"seed": 7})
    assert summary["change"]["accuracy"]["value"] == pytest.approx(0.25)
    assert summary["final_over_always_call"]["utility"]["value"] == 0.0
    assert (summary["start"]["n"], summary["seed"]) == (4, 7)


class Counting:
    """Plays by looking up, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def play(self, tasks, sources, round, snapshots=None):
        self.asked += 1
        return [group for group in GROUPS if group.task in tasks]


def test_an_evaluation_that_is_on_disk_is_not_done_again(tmp_path):
    player, run = Counting(), Run(tmp_path)
    tasks = [group.task for group in GROUPS]
    first = evaluate(player, tasks, Selectivity(), run, "start", None)
    assert evaluate(player, tasks, Selectivity(), run, "start", None) == first == GROUPS
    assert player.asked == 1


def test_an_evaluation_that_a_crash_cut_short_is_done_again(tmp_path):
    player, run = Counting(), Run(tmp_path)
    tasks = [group.task for group in GROUPS]
    evaluate(player, tasks, Selectivity(), run, "start", None)
    path = tmp_path / "evaluation" / "start.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert evaluate(player, tasks, Selectivity(), run, "start", None) == GROUPS
    assert player.asked == 2


@pytest.fixture
def finished(tmp_path) -> Run:
    """A run's folder as far as report and pooling read it."""
    run = Run.start(tmp_path / "run", config_text="", resolved={"name": "<run>"}, resume=False)
    evaluate(Counting(), [group.task for group in GROUPS], Selectivity(), run, "start", None)
    evaluate(Counting(), [group.task for group in GROUPS], Selectivity(), run, "final", None)
    ranked = RankedGroup(
        Task(id="x", prompt="What is <b>?", answer="1"),
        (
            Candidate(attempt("forced-direct", "1"), Reward(1.0, {"correct": 1.0})),
            Candidate(attempt("own", "0"), Reward(0)),
        ),
    )
    with Log(run.path / RANKED, RoundGroup) as log:
        log.append([RoundGroup(0, 0, ranked)])
    for step in range(30):
        run.log({"stage": "clone", "step": step, "loss": 1.0 / (step + 1)})
    return run


def test_the_report_is_escaped_and_whole(finished):
    ratios = selectivity_ratios(GROUPS)
    write_report(finished, summarise({"start": ratios, "final": ratios}, 4, {}))
    page = (finished.path / "report.html").read_text()
    assert "What is &lt;b&gt;?" in page
    assert "vegaEmbed(" in page
    assert "What is <b>" not in page
    assert "{body}" not in page


def test_seeds_are_pooled_from_the_attempts_that_runs_kept(finished, tmp_path):
    pooled = pool_seeds([finished.path, finished.path], Selectivity(), tmp_path / "pooled.json")
    assert pooled["start"]["accuracy"]["value"] == 0.75
    assert pooled["change"]["accuracy"]["value"] == 0.0
    assert json.loads((tmp_path / "pooled.json").read_text())["always_call"]["call_rate"]["value"] == 1.0
    assert "always_direct" in table(pooled)


def test_asking_the_same_questions_again_makes_nothing_surer():
    after, before = [1.0] * 30 + [0.0] * 70, [0.0] * 5 + [1.0] * 20 + [0.0] * 75
    once = difference([Ratio(after)], [Ratio(before)])
    thrice = difference([Ratio(after)] * 3, [Ratio(before)] * 3)
    assert (thrice.low, thrice.high) == (once.low, once.high)


def test_attempts_that_the_infrastructure_ended_count_nowhere():
    down = Group(Task(id="d", prompt="?", answer="1"), tuple(_failed(name) for name in ("free", "direct", "call")))
    assert values(selectivity_ratios([*GROUPS, down])) == values(selectivity_ratios(GROUPS))


def _failed(source: str):
    return attempt(source, None, stop="failed", error="the endpoint is down")


def test_too_many_failed_attempts_end_the_evaluation_with_the_cause(tmp_path):
    class Down:
        def play(self, tasks, sources, round, snapshots=None):
            return [Group(task, (_failed("free"), _failed("direct"), _failed("call"))) for task in tasks]

    with pytest.raises(TooManyFailuresError, match=r"12 of 12 episodes .* the endpoint is down"):
        evaluate(Down(), [group.task for group in GROUPS], Selectivity(), Run(tmp_path), "start", None)


def test_a_direct_attempt_that_calls_after_all_shows_that_a_call_is_needed():
    sly = Group(
        Task(id="s", prompt="?", answer="1"),
        (attempt("free", "1"), attempt("direct", "1", called=True, force="direct"), attempt("call", "1", called=True)),
    )
    assert values(selectivity_ratios([sly]))["missed"] == 1.0
