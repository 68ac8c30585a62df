"""What a sweep runs, and the table that comes of it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from executors.errors import ConfigError
from rl.config import Strict, override, read_yaml, validate
from rl.evaluation.evaluate import Measure, PairRanking, Played, changes
from rl.evaluation.intervals import Figure, Ratio, mean_over_seeds
from rl.evaluation.seeds import ratios_of
from rl.run import write_json


class Arm(Strict):
    """One way of training, or one state of another arm's runs."""

    overrides: list[str] = []
    """Changes to the base config: dotted keys, such as ``improvement.objective.kind=sft``."""
    base: str | None = None
    """A config of its own, where it is not the grid's."""
    of: str | None = None
    """The arm whose runs it is a state of; it then runs nothing itself."""
    state: str = "final"
    """Of the policy, as evaluations are named: ``start``, ``final``, ``last``, a baseline such as ``always_call``."""

    @model_validator(mode="after")
    def _runs_or_not(self) -> "Arm":
        if self.of is not None and (self.overrides or self.base):
            raise ValueError(f"an arm that is a state of {self.of!r} runs nothing: leave overrides and base out")
        return self


class Grid(Strict):
    """Arms and seeds."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    base: str
    """The config that the arms change; a path from where the command is run."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    arms: dict[str, Arm] = Field(min_length=1)
    against: str | None = None
    """The arm that the others are compared with, question by question."""
    figures: list[str] | None = None
    """Columns of the table; all by default."""
    storage: str = "runs"

    @model_validator(mode="after")
    def _consistent(self) -> "Grid":
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds: {self.seeds} must be distinct and not negative")
        for name, arm in self.arms.items():
            if arm.of is not None and (arm.of not in self.arms or self.arms[arm.of].of is not None):
                raise ValueError(f"arms.{name}: {arm.of!r} is no arm that runs; name one of {', '.join(self.running)}")
        if self.against is not None and self.against not in self.arms:
            raise ValueError(f"against: there is no arm {self.against!r}; there are {', '.join(self.arms)}")
        return self

    @property
    def running(self) -> list[str]:
        """The arms that run something."""
        return [name for name, arm in self.arms.items() if arm.of is None]

    def owner(self, arm: str) -> str:
        """The arm whose runs an arm is read from."""
        return self.arms[arm].of or arm


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a grid: what ``apprentice train`` is told."""

    arm: str
    seed: int
    config: str
    overrides: tuple[str, ...]
    folder: Path

    @property
    def done(self) -> bool:
        """Whether it has run to its end."""
        return (self.folder / "evaluation" / "summary.json").is_file()

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.folder / "config.resolved.yaml").is_file()

    def arguments(self) -> list[str]:
        """Of ``apprentice``."""
        seed = f"seed={self.seed}"
        command = ["train", self.config, *self.overrides, seed, "--run-dir", str(self.folder)]
        return [*command, "--resume"] if self.begun else command


def read_grid(path: Path, assignments: Sequence[str] = ()) -> Grid:
    """A grid from its file, with ``key.path=value`` overrides laid over it.

    Raises:
        ConfigError: it is none.
    """
    return validate(override(read_yaml(path), assignments), Grid, str(path))


def jobs(grid: Grid, folder: Path) -> list[Job]:
    """The runs of a grid, seed by seed, so that a grid that is stopped has whole seeds."""
    return [
        Job(
            arm=name,
            seed=seed,
            config=grid.arms[name].base or grid.base,
            overrides=tuple(grid.arms[name].overrides),
            folder=folder / f"{name}-seed{seed}",
        )
        for seed in grid.seeds
        for name in grid.running
    ]


def measure_of(measures: Mapping[str, Measure]) -> Played:
    """How all arms are measured.

    Args:
        measures: by arm.

    Raises:
        ConfigError: they are measured in different ways, or on recorded attempts.
    """
    first, *others = measures.items()
    for name, measure in others:
        if measure != first[1]:
            raise ConfigError(f"arms {first[0]!r} and {name!r} have different evaluations, which no table compares")
    if isinstance(first[1], PairRanking):
        raise ConfigError("evaluation: ranking keeps no attempts to compare; a sweep takes selectivity or calls")
    return first[1]


@dataclass(frozen=True, slots=True)
class Row:
    """An arm's figures over its seeds, and how much more they are than those of another arm."""

    arm: str
    seeds: int
    figures: Mapping[str, Figure]
    change: Mapping[str, Figure] | None = None


def rows(grid: Grid, folder: Path, measure: Played) -> list[Row]:
    """The table of a grid, of the seeds that are finished; arms without any are left out."""
    read = {job: ratios_of(job.folder, measure) for job in jobs(grid, folder) if job.done}
    by_arm: dict[str, dict[int, Mapping[str, Ratio]]] = {}
    for name, arm in grid.arms.items():
        found: dict[int, Mapping[str, Ratio]] = {
            job.seed: states[state]
            for job, states in read.items()
            if job.arm == grid.owner(name) and (state := _held(states, arm.state)) is not None
        }
        if found:
            by_arm[name] = found
    other = by_arm.get(grid.against or "", {})
    made = []
    for name, found in by_arm.items():
        means = {key: mean_over_seeds([ratios[key] for ratios in found.values()]) for key in next(iter(found.values()))}
        shared = [seed for seed in found if seed in other] if name != grid.against else []
        change = changes([found[seed] for seed in shared], [other[seed] for seed in shared]) if shared else None
        made.append(Row(name, len(found), means, change))
    return made


def missing(grid: Grid, folder: Path, measure: Played) -> list[str]:
    """The states that arms name and finished runs do not have."""
    wrong = []
    for job in jobs(grid, folder):
        if job.done:
            there = ratios_of(job.folder, measure)
            wanted = {arm.state for name, arm in grid.arms.items() if grid.owner(name) == job.arm}
            absent = [state for state in sorted(wanted) if _held(there, state) is None]
            wrong += [f"{job.folder.name} has no state {state!r}: {', '.join(there)}" for state in absent]
    return wrong


def _held(states: Mapping[str, Any], state: str) -> str | None:
    """What a run has a state as: where the last policy is the best, it stands as the final one alone."""
    if state == "last" and "last" not in states:
        state = "final"
    return state if state in states else None


def markdown(grid: Grid, made: Sequence[Row]) -> str:
    """The table as Markdown: means over the seeds, with 95% intervals that resample seeds and questions."""
    columns = grid.figures or list(made[0].figures) if made else []
    lines = [f"| arm | seeds | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for row in made:
        cells = (_shown(row.figures.get(column)) for column in columns)
        lines.append(f"| {row.arm} | {row.seeds} | {' | '.join(cells)} |")
    compared = [row for row in made if row.change is not None]
    if compared:
        lines += ["", f"| over {grid.against} | seeds | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
        for row in compared:
            cells = (_shown((row.change or {}).get(column), signed=True) for column in columns)
            lines.append(f"| {row.arm} | {row.seeds} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_table(grid: Grid, folder: Path, made: Sequence[Row]) -> Path:
    """Write ``sweep.md`` and ``sweep.json``; returns the former's path."""
    path = folder / "sweep.md"
    path.write_text(markdown(grid, made))
    content: dict[str, Any] = {
        row.arm: {
            "seeds": row.seeds,
            "figures": {key: value.as_json() for key, value in row.figures.items()},
            "change": None if row.change is None else {key: value.as_json() for key, value in row.change.items()},
        }
        for row in made
    }
    write_json(folder / "sweep.json", json.loads(json.dumps(content)))
    return path


def _shown(figure: Figure | None, *, signed: bool = False) -> str:
    if figure is None or math.isnan(figure.value):
        return "-"
    form = "+.3f" if signed else ".3f"
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"
