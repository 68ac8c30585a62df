"""A run's folder for tests of its pages: two rounds, two evaluated states, metrics, a summary."""

import json
from pathlib import Path

from executors.types import MalformedCall, Observation, ToolCall
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.rounds import GROUPS, RoundGroup
from rl.run import Run
from rollouts.store import Log
from rollouts.types import Completion, Episode, Group, Task, Turn

TASK = Task(id="t1", prompt="What is <b>6</b> * 7?", answer="42", gold=ToolCall("calculator", {"expression": "6*7"}))
OTHER = Task(id="t2", prompt="Name a colour.", answer="blue", labels={"level": "easy"})


def calling(source: str, answer: str, status: str = "ok") -> Episode:
    """An attempt with one call."""
    reply = Completion(text="calculator(6*7)->", token_ids=(5, 6), mask=(False, True), logprobs=(-0.1, -2.0))
    seen = Observation(answer if status == "ok" else "division by zero", status, 0.002)  # type: ignore[arg-type]
    turns = (
        Turn(reply, (ToolCall("calculator", {"expression": "6*7"}),), (seen,)),
        Turn(Completion(text=f"Answer: {answer}")),
    )
    return _episode(source, turns, answer)


def direct(source: str, answer: str) -> Episode:
    """An attempt without a call."""
    return _episode(source, (Turn(Completion(text=f"Answer: {answer}")),), answer)


def malformed(source: str) -> Episode:
    """An attempt whose call is none."""
    call = MalformedCall("calculator(6*", "the bracket is not closed")
    return _episode(
        source, (Turn(Completion(text="calculator(6*"), (call,), (Observation("error", "bad_call"),)),), None
    )


def _episode(source: str, turns: tuple[Turn, ...], answer: str | None) -> Episode:
    return Episode(
        id=f"improve/0/t/{source}/0",
        task_id="t",
        source=source,
        policy="live",
        version=3,
        turns=turns,
        answer=answer,
        stop="answer",
    )


def ranked(task: Task, *attempts: tuple[float, Episode]) -> RankedGroup:
    """A group, best first."""
    return RankedGroup(
        task, tuple(Candidate(episode, Reward(value, {"correct": value})) for value, episode in attempts)
    )


def make_run(folder: Path, *, finished: bool = True, seed: int = 0) -> Run:
    """A run that has played two rounds."""
    run = Run.start(folder, config_text="", resolved={"recipe": "trice", "seed": seed, "rounds": [1, 2]}, resume=False)
    for step in range(4):
        run.log({"stage": "improve", "step": step, "loss": 1.0 / (1 + step), "constant": 2})
    add_round(run, 0)
    add_round(run, 1)
    for state in ("start", "final"):
        with Log(run.path / "evaluation" / f"{state}.jsonl", Group) as log:
            log.append([Group(TASK, (direct("free", "41" if state == "start" else "42"),))])
    if finished:
        figure = {"value": 0.5, "low": 0.4, "high": 0.6}
        state = {"accuracy": figure, "needless": {"value": None, "low": None, "high": None}, "n": 1}
        summary = {
            "start": state,
            "final": state | {"accuracy": figure | {"value": 0.9}},
            "change": {"accuracy": figure},
        }
        (run.path / "evaluation" / "summary.json").write_text(json.dumps(summary))
    return run


def add_round(run: Run, round: int) -> None:
    """One more round of both tasks."""
    mixed = ranked(TASK, (1.0, calling("hot", "42")), (0.1, direct("cool", "41")), (0.0, malformed("odd")))
    tied = ranked(OTHER, (0.0, calling("hot", "red", "tool_error")), (0.0, direct("cool", "red")))
    with Log(run.path / GROUPS, RoundGroup) as log:
        log.append([RoundGroup(round, round, mixed), RoundGroup(round, round, tied)])
