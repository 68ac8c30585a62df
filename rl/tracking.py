"""A run's curves and episodes in a tracker, trackio or Weights & Biases, sent from the run's own files.

Whoever tracks reads ``metrics.jsonl`` and the ranked groups, live or long after, and keeps in the run's folder how
far it came; the run itself neither waits for a tracker nor fails with one.
"""

import importlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from executors.errors import ApprenticeError, ConfigError, DataError
from rewards.types import Candidate, RankedGroup
from rl.data.conversations import Setting, conversation, prompt
from rl.data.rounds import RoundGroup
from rl.driver import Driver
from rl.run import Run, write_json

Kind: TypeAlias = Literal["trackio", "wandb"]
_AXES = ("step", "round")
_LEFT_OUT = ("time", "stage")
_EVERY = 2.0
"""Seconds between looks at a run that goes on."""


class TrackerError(ApprenticeError):
    """The tracker did not take what it was sent; what it has stays, and the next try goes on from there."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run was sent."""

    lines: int = 0
    """Of ``metrics.jsonl``."""
    groups: int = 0


class Tracker:
    """One run in one tracker; both have the interface of ``wandb``."""

    def __init__(self, kind: Kind, project: str, run: Run, setting: Setting | None, every: int) -> None:
        """
        Args:
            kind: which.
            project: that the run is put into.
            run: what is sent.
            setting: what reads its episodes; None where only curves are sent.
            every: of so many groups one is sent, its best and its worst attempt.

        Raises:
            ConfigError: the tracker is not installed.
        """
        self.run = run
        self.setting = setting
        self.every = every
        self._module = require_tracker(kind)
        self._file = run.path / f"tracked.{kind}.json"
        config = run.config()
        options: dict[str, Any] = {"project": project, "name": run.path.resolve().name, "config": config}
        options["resume"] = "allow"
        if kind == "trackio":
            options |= {"auto_log_cpu": False, "auto_log_gpu": False}  # of this process, which is not the run's
        else:
            options["id"] = options["name"]
        self._asked(lambda: self._module.init(**options))

    @property
    def position(self) -> Position:
        """How far the run was sent."""
        return Position(**json.loads(self._file.read_text())) if self._file.is_file() else Position()

    def send(self, groups: Callable[[], Iterable[RoundGroup]] | None) -> Position:
        """Send what the run has beyond what was sent.

        Args:
            groups: reads its ranked groups, in order; None where it has none.

        Raises:
            TrackerError: the tracker refused.
        """
        began = self.position
        lines = list(self.run.metrics())
        for number, record in enumerate(lines[began.lines :], start=began.lines):
            if figures := _figures(record):
                self._asked(lambda n=number, sent=figures: self._module.log(sent, step=n))
        every = list(groups()) if groups is not None and self.setting is not None else []
        for number in range(began.groups, len(every)):
            if number % self.every == 0:
                self._trace(every[number], max(0, len(lines) - 1))
        position = Position(len(lines), max(len(every), began.groups))
        write_json(self._file, asdict(position))
        return position

    def finish(self) -> None:
        """Wait until all is sent."""
        self._asked(self._module.finish)

    def _trace(self, record: RoundGroup, step: int) -> None:
        ranked = sorted(record.group.candidates, key=lambda one: one.reward.value)
        chosen = {"best": ranked[-1], **({"worst": ranked[0]} if len(ranked) > 1 else {})}
        for name, candidate in chosen.items():
            made = self._traced(record, candidate)
            self._asked(lambda key=f"episodes/{name}", sent=made: self._module.log({key: sent}, step=step))

    def _traced(self, record: RoundGroup, candidate: Candidate) -> Any:
        assert self.setting is not None
        messages, about = _told(record.group, candidate, self.setting), _about(record, candidate)
        if hasattr(self._module, "Trace"):
            return self._module.Trace(messages, metadata=about)
        return json.dumps({"messages": messages, **about}, ensure_ascii=False)

    def _asked(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            raise TrackerError(
                f"the tracker refused ({type(error).__name__}: {error}); what was sent before is kept, and the same "
                "command goes on from there"
            ) from error


def follow(tracker: Tracker, groups: Callable[[], Iterable[RoundGroup]] | None) -> Position:
    """Send a run until nobody drives it any more, and what it left then.

    Raises:
        TrackerError: see ``Tracker.send``.
    """
    while _driven(tracker.run.path):
        tracker.send(groups)
        time.sleep(_EVERY)
    return tracker.send(groups)


def require_tracker(kind: Kind) -> Any:
    """A tracker's module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(kind)
    except ImportError as error:
        raise ConfigError(f"{kind} cannot be imported ({error}); pip install {kind}") from error


def _driven(run: Path) -> bool:
    try:
        return Driver.of(run).alive
    except DataError:
        return False


def _figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics, by stage; its step and round beside them, for axes."""
    stage = str(record.get("stage", "run"))
    numbers = {
        name: float(value)
        for name, value in record.items()
        if name not in _LEFT_OUT and isinstance(value, int | float) and math.isfinite(value)
    }
    if not numbers.keys() - set(_AXES):
        return {}
    return {f"{stage}/{name}": value for name, value in numbers.items()}


def _told(group: RankedGroup, candidate: Candidate, setting: Setting) -> list[dict[str, Any]]:
    specs = setting.specs(group.task)
    messages = [*prompt(group.task, setting.format), *conversation(candidate.episode, setting.format, specs)]
    return [dict(message) for message in messages]


def _about(record: RoundGroup, candidate: Candidate) -> dict[str, Any]:
    episode = candidate.episode
    return {
        "task": record.group.task.id,
        "round": record.round,
        "reward": candidate.reward.value,
        "source": episode.source,
        "version": episode.version,
        "answer": episode.answer,
    }
