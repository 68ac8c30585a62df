"""The runs of a folder, and what each says of itself."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from executors.errors import DataError
from rl.driver import Driver
from rl.pages.attempts import Attempts
from rl.run import Run

_QUIET = 120.0
"""Seconds without a new line after which a run that is not finished is taken for stopped."""
_HEADLINE = ("utility", "accuracy", "decisions", "correct/new", "correct", "overall", "answered", "answer", "tool")
_HEADLINE += ("ndcg@5", "selected", "call_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A run in short."""

    name: str
    recipe: str
    seed: int
    status: str
    """``finished``, ``running`` or ``stopped``."""
    stage: str
    """The last that logged something."""
    age: float
    """Seconds since it last did."""
    headline: Mapping[str, tuple[float, float]]
    """By figure, its value at the start and at the end."""


class Shelf:
    """The runs in a folder, or in folders of it such as those of a sweep."""

    def __init__(self, storage: Path) -> None:
        """
        Args:
            storage: the folder; or that of a single run.
        """
        self.storage = storage.resolve()
        self._attempts: dict[str, Attempts] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Of the runs, the newest first."""
        depths = ("", "*/", "*/*/")
        found = [path.parent for depth in depths for path in self.storage.glob(f"{depth}config.resolved.yaml")]
        found.sort(key=lambda path: -path.joinpath("config.resolved.yaml").stat().st_mtime)
        return ["." if path == self.storage else path.relative_to(self.storage).as_posix() for path in found]

    def run(self, name: str) -> Run | None:
        """A run by its name; None where there is none of that name here."""
        return Run(self.storage / name) if name in self.names() else None

    def attempts(self, name: str) -> Attempts:
        """The attempts of a run, as they are now."""
        with self._lock:
            held = self._attempts.setdefault(name, Attempts(self.storage / name))
            held.refresh()
            return held

    def card(self, name: str) -> Card:
        """What a run says of itself."""
        run = Run(self.storage / name)
        config = run.config()
        last = _last(run)
        summary = summary_of(run)
        path = run.path / "metrics.jsonl"
        age = time.time() - (path if path.exists() else run.resolved).stat().st_mtime
        status = "finished" if summary else "running" if _is_driven(run.path, age) else "stopped"
        return Card(
            name=self.title(name),
            recipe=str(config.get("recipe", "")),
            seed=int(config.get("seed", 0)),
            status=status,
            stage=str(last.get("stage", "")),
            age=age,
            headline=headline(summary),
        )

    def title(self, name: str) -> str:
        """What a run is called on a page."""
        return self.storage.name if name == "." else name


def _is_driven(run: Path, age: float) -> bool:
    """Whether a run goes on: as its driver's process says on this machine, else by when it last wrote anything."""
    try:
        driver = Driver.of(run)
    except DataError:
        return age < _QUIET
    return driver.alive if driver.here else age < _QUIET


def summary_of(run: Run) -> dict[str, Any]:
    """The figures of a finished run; empty before."""
    path = run.path / "evaluation" / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def headline(summary: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The first of a run's figures, before and after; of recipes with a gate, of the policy that passed it."""
    start = summary.get("start") or summary.get("base", {})
    passed = (summary.get("published") or {}).get("name", "")
    attempts = f"{passed}.jsonl"  # of ft, learned from more than before: ft-2
    found = (one for one in summary.values() if isinstance(one, Mapping) and one.get("attempts") == attempts)
    final = summary.get("final") or summary.get(passed) or next(found, {})
    shared = [name for name in _HEADLINE if name in start and name in final]
    return {name: (start[name]["value"], final[name]["value"]) for name in shared[:3]}


def states(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Of a summary, the figures of each state of the policy, by name."""
    found = {name: value for name, value in summary.items() if isinstance(value, Mapping) and "n" in value}
    return {
        name: {key: one for key, one in value.items() if isinstance(one, Mapping) and "value" in one}
        for name, value in found.items()
    }


def differences(left: Run, right: Run) -> list[tuple[str, str, str]]:
    """The settings in which two runs differ, by their dotted keys."""
    one, other = _flat(left.config()), _flat(right.config())
    keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
    return [(key, one.get(key, "-"), other.get(key, "-")) for key in keys]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}{key}.").items()}
    if isinstance(value, list) and value:
        return {k: v for number, inner in enumerate(value) for k, v in _flat(inner, f"{prefix}{number}.").items()}
    return {prefix[:-1]: yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()}


def _last(run: Run) -> dict[str, Any]:
    path = run.path / "metrics.jsonl"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return {}
