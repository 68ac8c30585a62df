"""Several benchmarks as one: TRICE's MIX, its SPLIT, and what was never trained on.

Every task is labelled with the data set that it is of, so that figures can be told apart. A part that is not trained on
is still tested: so one test set serves the policy of all parts, that of each one, and that which never saw a tool.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from executors.catalog import Catalog
from executors.errors import ConfigError
from executors.tool import Tool
from rl.config import Strict
from rl.data.tasks.arithmetic import Arithmetic
from rl.data.tasks.benchmark import Benchmark
from rl.data.tasks.conversions import Conversions
from rl.data.tasks.facts import Facts
from rl.data.tasks.gsm8k import Gsm8k
from rl.data.tasks.jsonl import JsonLines
from rl.data.tasks.math_words import MathWords
from rl.data.tasks.trice import TriceFiles
from rollouts.types import Task

PartTasks = Annotated[
    Arithmetic | Facts | Conversions | JsonLines | Gsm8k | MathWords | TriceFiles, Field(discriminator="kind")
]


class Part(Strict):
    """One benchmark of a mixture."""

    tasks: PartTasks
    share: float | None = Field(default=None, gt=0)
    """Of what is trained on, beside the shares of the others; all of its tasks where no part has a share."""


class Mixture(Strict):
    """Parts by name, each a benchmark of its own."""

    kind: Literal["mixture"] = "mixture"
    parts: dict[str, Part] = Field(min_length=1)
    train_on: list[str] | None = None
    """Parts that are cloned, improved and validated on; the others are tested all the same. All by default."""
    tools: Literal["own", "all"] = "own"
    """Whether a task may call its own part's tools, as in TRICE, or those of all parts."""

    @model_validator(mode="after")
    def _consistent(self) -> "Mixture":
        if self.train_on is not None:
            if unknown := sorted(set(self.train_on) - self.parts.keys()):
                raise ValueError(f"train_on: there is no part {unknown[0]!r}; there are {', '.join(self.parts)}")
            if not self.train_on:
                raise ValueError("train_on: name at least one part")
        shares = [part.share for part in self.trained.values()]
        if any(shares) and not all(shares):
            raise ValueError("parts: some have a share and some have none; give one to each that is trained on")
        return self

    @property
    def trained(self) -> Mapping[str, Part]:
        """The parts that are trained on."""
        return {name: part for name, part in self.parts.items() if self.train_on is None or name in self.train_on}

    def catalog(self) -> Catalog:
        """The tools of all parts.

        Raises:
            ConfigError: two parts mean different tools by one name.
        """
        return _union({name: part.tasks.catalog() for name, part in self.parts.items()})

    def load(self, seed: int) -> Benchmark:
        """Load every part.

        Raises:
            ConfigError: a part has recorded answers, or two parts mean different tools by one name.
            DataError: a part cannot be loaded.
        """
        loaded = {name: part.tasks.load(seed) for name, part in self.parts.items()}
        if recorded := [name for name, benchmark in loaded.items() if benchmark.recordings]:
            raise ConfigError(f"parts.{recorded[0]}: its answers are recorded, which a mixture has no place for")
        catalog = _union({name: benchmark.catalog for name, benchmark in loaded.items()})
        offered = catalog.names if self.tools == "all" else None
        ours = {name: _relabelled(name, benchmark, offered) for name, benchmark in loaded.items()}
        trained = {name: ours[name] for name in self.trained}
        return Benchmark(
            catalog=catalog,
            demonstrations=self._mixed({name: part.demonstrations for name, part in trained.items()}, seed),
            train=self._mixed({name: part.train for name, part in trained.items()}, seed),
            validation=tuple(task for part in trained.values() for task in part.validation),
            test=tuple(task for part in ours.values() for task in part.test),
            rejected=tuple(f"{name}: {reason}" for name, part in ours.items() for reason in part.rejected),
        )

    def _mixed(self, tasks: Mapping[str, Sequence[Task]], seed: int) -> tuple[Task, ...]:
        """The parts' tasks, shuffled, as many of each as the shares say; the scarcest is used up."""
        shares = {name: share for name, part in self.trained.items() if (share := part.share)}
        most = min((len(tasks[name]) / share for name, share in shares.items()), default=0.0)
        counts = {name: int(most * share + 1e-9) for name, share in shares.items()}
        mixed = [task for name, part in tasks.items() for task in part[: counts.get(name, len(part))]]
        random.Random(f"mixture/{seed}").shuffle(mixed)
        return tuple(mixed)


def _relabelled(name: str, benchmark: Benchmark, offered: tuple[str, ...] | None) -> Benchmark:
    """A part whose tasks say where they are from, with ids that no other part has."""

    def relabelled(tasks: Sequence[Task]) -> tuple[Task, ...]:
        return tuple(
            replace(
                task,
                id=f"{name}:{task.id}",
                tools=offered or task.tools,
                labels={"dataset": name, **task.labels},
            )
            for task in tasks
        )

    return replace(
        benchmark,
        demonstrations=relabelled(benchmark.demonstrations),
        train=relabelled(benchmark.train),
        validation=relabelled(benchmark.validation),
        test=relabelled(benchmark.test),
    )


def _union(catalogs: Mapping[str, Catalog]) -> Catalog:
    tools: dict[str, tuple[str, Tool]] = {}
    for part, catalog in catalogs.items():
        for tool in catalog:
            owner, known = tools.setdefault(tool.name, (part, tool))
            if (known.spec, known.limits) != (tool.spec, tool.limits):
                raise ConfigError(
                    f"parts {owner!r} and {part!r} mean different tools by {tool.name!r}; give one another name"
                )
    return Catalog(tool for _, tool in tools.values())
