"""ToolBench's evaluation: how many requests are solved, and whose way to an answer is the better one.

A request counts as unsolved without asking anybody where the last step is not ``Finish``, or is one that gives up or
says nothing. Of the others a judge says solved, unsolved or unsure by request and answer, and where it is unsure, by
the whole way. Of two systems the one with the better verdict wins; where they are equal the judge chooses, twice, with
the two in either order: only a choice that does not depend on the order is one. What a judge fails at is an error, and
neither a win nor a loss.
"""

import asyncio
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from executors.errors import DataError
from rl.data.trees import FINISH, GIVE_UP, answer_details, best_way, loaded, named, pairs_of, read_searched, steps_of

Verdict = Literal["solved", "unsure", "unsolved"]
Choice = Literal["first", "second", "tie"]
Winner = Literal["ours", "theirs", "tie", "error"]
SCORES: Mapping[Verdict, float] = {"solved": 1.0, "unsure": 0.5, "unsolved": 0.0}
_SHAPE = 'answers map each query\'s id to {"query", "available_tools", "answer": {"answer_details"}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """One call of a way, with the thought before it."""

    thought: str
    tool: str
    arguments: str
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a system did at one request."""

    id: str
    query: str
    calls: tuple[Called, ...]
    """``Finish`` among them."""

    @property
    def answer(self) -> str:
        """What the user reads; empty where the last call is no ``Finish``, or gives up."""
        if not self.calls or self.calls[-1].tool != FINISH:
            return ""
        return _final(self.calls[-1].arguments)

    @property
    def unsolved(self) -> str:
        """Why it is unsolved whatever a judge would say; empty where that is to be judged."""
        if not self.calls or self.calls[-1].tool != FINISH:
            return "the last step is not Finish"
        return "" if self.answer.strip() else "it gives up, or answers nothing"


class Judge(Protocol):
    """Says what a rule cannot."""

    counts: Counter[str]
    """How it came to its verdicts, such as ``asked`` and ``kept``."""

    async def verdict(self, item: Answered, run: int, *, whole: bool) -> Verdict | None:
        """Whether a request is solved; None where it cannot be told.

        Args:
            item: the request and what was done.
            run: which of several independent verdicts.
            whole: whether to judge the whole way rather than the answer alone.
        """
        ...

    async def choice(self, first: Answered, second: Answered, run: int) -> Choice | None:
        """Which of two ways at one request is the better; None where it cannot be told."""
        ...

    async def close(self) -> None:
        """It is asked no more from this event loop."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRate:
    """How many requests are solved."""

    verdicts: Mapping[str, tuple[Verdict | None, ...]]
    """By request, one of each run; None where the judge failed."""

    def of(self, id: str, round: int) -> Verdict | None:
        """The verdict on a request in some round; they come again where there are more rounds than runs."""
        return self.verdicts[id][round % len(self.verdicts[id])]

    @property
    def runs(self) -> list[float]:
        """The rate of each run, over the requests that were judged in it."""
        count = max((len(each) for each in self.verdicts.values()), default=0)
        return [_mean([SCORES[said] for each in self.verdicts.values() if (said := each[run])]) for run in range(count)]

    def as_json(self) -> dict[str, Any]:
        every = Counter(verdict or "error" for each in self.verdicts.values() for verdict in each)
        runs = self.runs
        return {
            "pass_rate": _percent(_mean(runs)),
            "deviation": _percent(statistics.pstdev(runs)) if runs else 0.0,
            "runs": [_percent(rate) for rate in runs],
            "n": len(self.verdicts),
            **{name: every[name] for name in ("solved", "unsure", "unsolved", "error")},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """Whose ways are the better ones."""

    votes: Mapping[str, tuple[Winner, ...]]
    """By request, one of each round."""

    def winner(self, id: str) -> Winner:
        """Who has more votes; an error where every round was one."""
        counted = Counter(self.votes[id])
        if counted["error"] == len(self.votes[id]):
            return "error"
        margin = counted["ours"] - counted["theirs"]
        return "ours" if margin > 0 else "theirs" if margin < 0 else "tie"

    def as_json(self) -> dict[str, Any]:
        won = Counter(self.winner(id) for id in self.votes)
        judged = len(self.votes) - won["error"]
        shares = {name: _percent(won[who] / judged if judged else 0.0) for name, who in _SIDES.items()}
        return {**shares, "n": judged, "errors": won["error"]}


_SIDES: Mapping[str, Winner] = {"win_rate": "ours", "lose_rate": "theirs", "tie_rate": "tie"}


async def pass_rate(items: Sequence[Answered], judge: Judge, times: int = 3, at_once: int = 16) -> PassRate:
    """Judge every request so many times.

    Args:
        items: what a system did.
        judge: of what the rule leaves open.
        times: independent verdicts on each.
        at_once: questions under way at the same time.
    """
    room = asyncio.Semaphore(at_once)

    async def one(item: Answered, run: int) -> Verdict | None:
        if item.unsolved:
            return "unsolved"
        async with room:
            said = await judge.verdict(item, run, whole=False)
            return await judge.verdict(item, run, whole=True) if said == "unsure" else said

    asked = [one(item, run) for item in items for run in range(times)]
    said = await asyncio.gather(*asked)
    each = {item.id: tuple(said[place * times : (place + 1) * times]) for place, item in enumerate(items)}
    return PassRate(verdicts=each)


async def win_rate(
    ours: Sequence[Answered],
    theirs: Sequence[Answered],
    passed: tuple[PassRate, PassRate],
    judge: Judge,
    rounds: int = 3,
    at_once: int = 16,
) -> WinRate:
    """Compare two systems on the requests that either has; who has no answer to a request loses it.

    Args:
        ours: what one system did.
        theirs: what the other did.
        passed: the verdicts on both; a round takes those of the run of its number.
        judge: of what is equal by verdict.
        rounds: votes on each request.
        at_once: questions under way at the same time.
    """
    room = asyncio.Semaphore(at_once)
    left, right = {item.id: item for item in ours}, {item.id: item for item in theirs}

    async def one(id: str, round: int) -> Winner:
        if id not in left or id not in right:
            return "ours" if id in left else "theirs"
        mine, other = passed[0].of(id, round), passed[1].of(id, round)
        if mine is None or other is None:
            return "error"
        if mine != other:
            return "ours" if SCORES[mine] > SCORES[other] else "theirs"
        async with room:
            return _either_way(
                await judge.choice(left[id], right[id], round), await judge.choice(right[id], left[id], round)
            )

    ids = list(dict.fromkeys([*left, *right]))
    said = await asyncio.gather(*(one(id, round) for id in ids for round in range(rounds)))
    return WinRate(votes={id: tuple(said[place * rounds : (place + 1) * rounds]) for place, id in enumerate(ids)})


def _either_way(there: Choice | None, back: Choice | None) -> Winner:
    """What two choices with the sides exchanged come to: one that goes with a place rather than a side is a tie."""
    if there is None or back is None:
        return "error"
    if (there, back) == ("first", "second"):
        return "ours"
    return "theirs" if (there, back) == ("second", "first") else "tie"


def read_answers(path: Path, method: str = "") -> list[Answered]:
    """What a system did at every request.

    Args:
        path: a file of ``answer_details`` by the query's id, or a folder of trees and chains, one a query.
        method: of a folder, which files are read, such as ``CoT@1``; all by default.

    Raises:
        DataError: nothing there can be read.
    """
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.json")) if method in file.stem and "_" in file.stem]
        content: Mapping[str, Any] = {named(file)[0]: answer_details(read_searched(file)) for file in files}
    else:
        content = loaded(path)
    try:
        items = [_answered(id, one) for id, one in content.items()]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: {error!r} is missing or of another type; {_SHAPE}") from error
    if not items:
        raise DataError(f"{path} has no answer; {_SHAPE}")
    return items


def recounted(path: Path) -> PassRate:
    """The verdicts that ToolBench's own pass-rate file holds, by request and run.

    Raises:
        DataError: it holds something else.
    """
    known: dict[str, Verdict] = {f"AnswerStatus.{name.capitalize()}": name for name in SCORES}
    try:
        rows = {id: row["is_solved"] for id, row in loaded(path).items()}
        runs = max(len(row) for row in rows.values())
        said: dict[str, tuple[Verdict | None, ...]] = {
            id: tuple(known[row[str(run)]] if str(run) in row else None for run in range(runs))
            for id, row in rows.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error!r}; a pass-rate file has is_solved by run for every request") from error
    return PassRate(verdicts=said)


def recounted_votes(path: Path, ours: str) -> WinRate:
    """The votes that ToolBench's own preference file holds.

    Args:
        path: the file.
        ours: the model of the two whose wins are counted.

    Raises:
        DataError: it holds something else, or no such model.
    """
    votes: dict[str, tuple[Winner, ...]] = {}
    for id, row in loaded(path).items():
        counts = {name: count for name, count in row.items() if not name.startswith("round_")}
        if ours not in counts or len(counts) != 2:
            raise DataError(f"{path}, request {id}: votes for {', '.join(counts)}, and {ours!r} should be one of two")
        mine = counts.pop(ours)
        (other,) = counts.values()
        votes[id] = (*(("ours",) * mine), *(("theirs",) * other)) or ("tie",)
    return WinRate(votes=votes)


def _answered(id: str, one: Mapping[str, Any]) -> Answered:
    way = best_way(steps_of(one["answer"]["answer_details"]))
    calls = [
        Called(thought=thought, tool=tool, arguments=arguments, response=response)
        for thought, tool, arguments, response in pairs_of(way)
        if tool
    ]
    return Answered(id=id, query=str(one["query"]), calls=tuple(calls))


def _final(arguments: str) -> str:
    """The answer that ``Finish`` is given; of broken JSON, what stands behind the key."""
    try:
        read = json.loads(arguments)
    except ValueError:
        if GIVE_UP in arguments or '"final_answer"' not in arguments:
            return ""
        return arguments.partition('"final_answer"')[2].strip(' :\n"}')
    if not isinstance(read, Mapping) or read.get("return_type") == GIVE_UP:
        return ""
    return str(read.get("final_answer") or "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _percent(share: float) -> float:
    return round(100 * share, 1)
