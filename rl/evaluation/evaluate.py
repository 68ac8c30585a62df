"""Evaluation: the same rollouts, greedy, on held-out tasks, and what they add up to."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import Field

from rewards.arguments import ExtraKeys
from rewards.correctness import Match
from rewards.selectivity import LIVE
from rl.config import Strict
from rl.evaluation.calls import call_ratios
from rl.evaluation.intervals import Figure, Ratio, difference, figures
from rl.evaluation.selectivity import CALL, DIRECT, FREE, attempt_ratios, evaluation_sources, selectivity_ratios
from rl.run import Run, write_json
from rollouts.policy import Source
from rollouts.store import Log
from rollouts.types import Group, Sampling, Snapshot, Task
from rollouts.worker import require_played


class Player(Protocol):
    """What evaluation asks of a rollout pool."""

    def play(
        self,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        round: str,
        snapshots: Mapping[str, Snapshot] | None = None,
    ) -> list[Group]: ...


class Selectivity(Strict):
    """Right answers, and calls exactly where they are needed."""

    kind: Literal["selectivity"] = "selectivity"
    match: Match = "numeric"
    call_cost: float = Field(default=0.2, ge=0)
    """What utility takes off for a call."""
    max_tokens: int = Field(default=48, gt=0)
    """Of one reply."""

    def sources(self) -> list[Source]:
        return evaluation_sources(LIVE, self.max_tokens)

    def ratios(self, groups: Sequence[Group], source: str = FREE) -> dict[str, Ratio]:
        return selectivity_ratios(groups, source, match=self.match, call_cost=self.call_cost)

    def free_ratios(self, groups: Sequence[Group]) -> dict[str, Ratio]:
        """The figures that the free attempt alone gives."""
        return attempt_ratios(groups, FREE, match=self.match, call_cost=self.call_cost)

    def by_hand(self) -> Mapping[str, str]:
        """Baselines that take no training, and the attempt that each is measured by."""
        return {"always_call": CALL, "always_direct": DIRECT}


class Calls(Strict):
    """Whether the first call is well-formed, names the expected tool, and gives the expected arguments."""

    kind: Literal["calls"] = "calls"
    extra_keys: ExtraKeys = "ignore"
    max_tokens: int = Field(default=96, gt=0)

    def sources(self) -> list[Source]:
        return [Source(name=FREE, policy=LIVE, sampling=Sampling(max_tokens=self.max_tokens))]

    def ratios(self, groups: Sequence[Group], source: str = FREE) -> dict[str, Ratio]:
        ratios = call_ratios(groups, source, self.extra_keys)
        return ratios | {"utility": ratios["correct"]}

    def free_ratios(self, groups: Sequence[Group]) -> dict[str, Ratio]:
        """The figures that the free attempt alone gives."""
        return self.ratios(groups)

    def by_hand(self) -> Mapping[str, str]:
        """Baselines that take no training: none here."""
        return {}


class Worth(Strict):
    """What the environments of the tools say that the policy's attempts are worth; 0 where they say nothing."""

    kind: Literal["environment"] = "environment"
    match: Match = "numeric"
    """How answers are compared where accuracy is told beside it."""
    max_tokens: int = Field(default=96, gt=0)
    """Of one reply."""

    def sources(self) -> list[Source]:
        return [Source(name=FREE, policy=LIVE, sampling=Sampling(max_tokens=self.max_tokens))]

    def ratios(self, groups: Sequence[Group], source: str = FREE) -> dict[str, Ratio]:
        chosen = [next(one for one in group.episodes if one.source == source) for group in groups]
        played = [float(episode.finished) for episode in chosen]
        said = [(episode.environment_reward or 0.0) * count for episode, count in zip(chosen, played, strict=True)]
        worth = Ratio(said, played)
        return {"worth": worth, **attempt_ratios(groups, source, match=self.match), "utility": worth}

    def free_ratios(self, groups: Sequence[Group]) -> dict[str, Ratio]:
        """The figures that the free attempt alone gives."""
        return self.ratios(groups)

    def by_hand(self) -> Mapping[str, str]:
        """Baselines that take no training: none here."""
        return {}


class PairRanking(Strict):
    """Whether the policy finds recorded attempts as likely as their rewards rank them; it writes nothing itself."""

    kind: Literal["ranking"] = "ranking"


Measure = Annotated[Selectivity | Calls | Worth | PairRanking, Field(discriminator="kind")]
Played: TypeAlias = Selectivity | Calls | Worth
"""What is measured on attempts of the policy's own."""


def evaluate(
    player: Player, tasks: Sequence[Task], measure: Played, run: Run, name: str, snapshot: Snapshot | None
) -> list[Group]:
    """Play held-out tasks greedily and keep every attempt in ``evaluation/<name>.jsonl``; what is there is not redone.

    Args:
        player: plays.
        tasks: held out.
        measure: which attempts are needed.
        run: where they are kept.
        name: of the policy state that is evaluated, such as ``start``.
        snapshot: its weights; None for those that the policy has.
    """
    log: Log[Group] = Log(run.folder("evaluation") / f"{name}.jsonl", Group)
    known = evaluated(run, name, len(tasks))
    if known is not None:
        return known
    log.path.unlink(missing_ok=True)
    groups = player.play(tasks, measure.sources(), f"evaluation/{name}", {LIVE: snapshot} if snapshot else None)
    require_played(groups)
    log.append(groups)
    return groups


def evaluated(run: Run, name: str, count: int) -> list[Group] | None:
    """The attempts of an evaluation that is on disk; None where there is none of so many tasks."""
    known = list(Log(run.path / "evaluation" / f"{name}.jsonl", Group).read())
    return known if len(known) == count else None


def summarise(states: Mapping[str, Mapping[str, Ratio]], count: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What ``evaluation/summary.json`` says: each state's figures, and what changed from start to final.

    Args:
        states: by name (``start``, ``final``, baselines), the ratios on the same questions.
        count: of questions.
        extra: what else belongs into it.
    """
    summary: dict[str, Any] = {
        name: {key: value.as_json() for key, value in figures(ratios).items()} | {"n": count}
        for name, ratios in states.items()
    }
    if "start" in states and "final" in states:
        summary["change"] = {
            key: value.as_json() for key, value in changes([states["final"]], [states["start"]]).items()
        }
        for name in states.keys() - {"start", "final"}:
            compared = changes([states["final"]], [states[name]])
            summary[f"final_over_{name}"] = {key: value.as_json() for key, value in compared.items()}
    return summary | dict(extra)


def changes(after: Sequence[Mapping[str, Ratio]], before: Sequence[Mapping[str, Ratio]]) -> dict[str, Figure]:
    """By figure, how much it rose on the same questions, over one or several seeds."""
    return {key: difference([late[key] for late in after], [early[key] for early in before]) for key in after[0]}


def write_summary(run: Run, summary: Mapping[str, Any]) -> None:
    """Write ``evaluation/summary.json``."""
    write_json(run.path / "evaluation" / "summary.json", summary)
