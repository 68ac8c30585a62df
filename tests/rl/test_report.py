"""What a report says of attempts, and that a browser without a network shows it whole."""

import json
import random

import pytest
import yaml

from executors.types import MalformedCall, Observation, ToolCall
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.rounds import GROUPS, RoundGroup
from rl.evaluation.evaluate import summarise
from rl.evaluation.intervals import Ratio
from rl.evaluation.report import write_report
from rl.evaluation.samples import OUTCOMES, choose, outcome, right_by
from rl.run import Run
from rollouts.store import Log
from rollouts.types import Completion, Episode, Group, Task, Turn
from tests.rl.browser import browser, chromium

CALL = ToolCall("calculator", {"expression": "2*3"})
RIGHT = right_by("numeric")


def task(number: int = 0, answer: str | None = "6", gold: ToolCall | None = None) -> Task:
    return Task(id=f"t{number}", prompt=f"What is 2 * 3? </script><b>{number}</b>", answer=answer, gold=gold)


def episode(number: int = 0, answer: str | None = "6", call=None, seen: Observation | None = None, **more) -> Episode:
    calls = () if call is None else (call,)
    observations = () if call is None else (seen or Observation("6"),)
    turn = Turn(Completion(text=f"I say {answer}"), calls, observations)
    stop = more.pop("stop", "answer" if answer is not None else "token_limit")
    return Episode(
        task_id=f"t{number}", source="free", policy="live", version=3, turns=(turn,), answer=answer, stop=stop, **more
    )


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (episode(), "right"),
        (episode(answer="7"), "wrong answer, no call"),
        (episode(answer="7", call=CALL), "wrong answer after a call"),
        (episode(answer=None, stop="answer"), "no answer"),
        (
            episode(answer="7", call=MalformedCall("calc(", "no end"), seen=Observation("?", "bad_call")),
            "malformed call",
        ),
        (episode(answer="7", call=CALL, seen=Observation("?", "bad_call")), "bad arguments"),
        (episode(answer="7", call=CALL, seen=Observation("late", "timeout")), "tool failed"),
        (episode(answer=None, stop="turn_limit", call=CALL), "out of turns"),
        (episode(answer=None), "out of tokens"),
        (episode(answer=None, stop="failed"), "not finished"),
    ],
)
def test_an_attempt_is_told_by_what_first_went_wrong(attempt, told):
    assert outcome(task(), attempt, RIGHT) == told
    assert told in OUTCOMES


def test_a_task_that_expects_a_call_is_judged_by_it():
    wanted = task(answer=None, gold=CALL)
    other = ToolCall("calculator", {"expression": "1"})
    assert outcome(wanted, episode(call=CALL), RIGHT) == "right"
    assert outcome(wanted, episode(call=ToolCall("units", {})), RIGHT) == "wrong tool"
    assert outcome(wanted, episode(call=other), RIGHT) == "wrong arguments"


def test_what_changed_most_is_shown_first_and_draws_follow_the_seed():
    tasks = [task(number) for number in range(12)]
    before = [Group(one, (episode(number, answer="7" if number > 9 else "6"),)) for number, one in enumerate(tasks)]
    after = [Group(one, (episode(number, answer="9" if number == 0 else "6"),)) for number, one in enumerate(tasks)]
    ranked = [
        RankedGroup(one, (Candidate(episode(n), Reward(n / 10)), Candidate(episode(n, "7"), Reward(-n))))
        for n, one in enumerate(tasks)
    ]
    chosen = choose(before, after, ranked, RIGHT, seed=1)
    assert [pair.task.id for pair in chosen.changed] == ["t10", "t0", "t11"]
    assert [one.reward for one in chosen.best] == [1.1, 1.0, 0.9, 0.8, 0.7]
    assert [one.reward for one in chosen.worst] == [-11, -10, -9, -8, -7]
    assert chosen.drawn == choose(before, after, ranked, RIGHT, seed=1).drawn


@pytest.fixture
def report(tmp_path):
    (tmp_path / "config.resolved.yaml").write_text(yaml.safe_dump({"name": "r", "evaluation": {"match": "numeric"}}))
    command = ["/x/rl/__main__.py", "train", "my config.yaml", "seed=1", "--resume"]
    versions = {"command": command, "packages": {"torch": "2.13"}, "python": "3.11", "commit": "abc"}
    (tmp_path / "environment.json").write_text(json.dumps(versions))
    run, draw = Run(tmp_path), random.Random(0)
    for step in range(60):
        run.log({"stage": "clone", "step": step, "loss": draw.random()})
        run.log({"stage": "groups", "round": step, "reward/own": draw.random(), "reward/gold": 1.0})
    for state, answer in (("start", "7"), ("final", "6")):
        groups = [Group(task(number), (episode(number, answer),)) for number in range(8)]
        Log(run.folder("evaluation") / f"{state}.jsonl", Group).append(groups)
    run.folder("groups")
    ranked = RankedGroup(task(), (Candidate(episode(), Reward(1.0, {"correct": 1.0})),))
    Log(tmp_path / GROUPS, RoundGroup).append([RoundGroup(0, 0, ranked)])
    figures = {"start": {"accuracy": Ratio([0.0] * 8)}, "final": {"accuracy": Ratio([1.0] * 8)}}
    write_report(run, summarise(figures, 8, {"seed": 0}))
    return tmp_path / "report.html"


def test_a_report_says_how_to_make_the_run_again_and_stays_small(report):
    page = report.read_text()
    assert "apprentice train &#39;my config.yaml&#39; seed=1</pre>" in page
    assert len(page) < 3_000_000
    assert "+1.000" in page and "0.000 → 1.000" in page
    assert "</script><b>" not in page


@pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")
def test_a_browser_draws_every_curve_without_a_network(report):
    program = chromium()
    assert program is not None
    with browser(program) as page:
        page.open(f"file://{report}")
        page.wait("document.querySelectorAll('.chart').length === 3")
        page.wait("document.querySelectorAll('.chart svg').length === 3")
        fetched = "performance.getEntriesByType('resource').filter(e => e.name.startsWith('http')).length"
        assert page.value(fetched) == 0
        assert page.value("document.body.scrollWidth <= innerWidth")
