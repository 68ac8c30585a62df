"""One rank of the learner: what it begins from, what it does with a step, what it leaves behind. Without Ray."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from executors.errors import ApprenticeError
from rl.learner import checkpoint
from rl.learner.learner import Learner
from rl.learner.scoring import Packing
from rl.learner.sharding import Footprint
from rl.learner.work import Work
from rl.models.load import load_model, load_tokenizer, pad_id

MAX_SKIPPED = 3
"""Steps in a row whose loss or gradient is not finite, the last of which ends a run."""


class DivergedError(ApprenticeError):
    """Several steps in a row had a loss or a gradient that is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankConfig:
    """How each rank learns."""

    folder: str
    """Of checkpoints."""
    errors: str
    """Where groups are written down that gave a loss or a gradient that is not finite."""
    gpu: bool = False
    footprint: Footprint = Footprint()
    packing: Packing = "auto"
    """See ``Scorer``."""
    max_tokens: int | None = None
    """See ``Scorer``."""
    quantised: bool = False
    """Whether the model that adapters belong to is held in 4 bits."""
    max_skipped: int = MAX_SKIPPED
    """Steps in a row that may be skipped, the last of which ends the run."""


class RankLoop:
    """One rank's learner and its place among the others. All ranks call each method together."""

    def __init__(self, start: Path, config: RankConfig, rank: int = 0, world: int = 1) -> None:
        """
        Args:
            start: the checkpoint to begin from.
            config: the same for all ranks.
            rank: of this one.
            world: how many there are.

        Raises:
            DataError: the checkpoint is not whole, or its parts do not belong together.
        """
        checkpoint.require(start)
        self.tokenizer = load_tokenizer(start)
        self.learner = Learner(
            load_model(start, quantised=config.quantised),
            pad_id=pad_id(self.tokenizer),
            packing=config.packing,
            max_tokens=config.max_tokens,
            footprint=config.footprint,
            gpu=config.gpu,
        )
        self._state: dict[str, Any] | None = checkpoint.load_state(start)
        self._skipped = int(self._state.get("skipped_in_a_row", 0))
        self._version = self._state.get("version")
        self._config = config
        self._rank, self._world = rank, world
        self._reports: dict[int, tuple[str, dict[str, float]]] = {}

    def learn(self, work: Work) -> dict[str, float]:
        """Take one step; enter its stage first where it is a new one.

        What dropout draws depends on the step and the rank alone, so that a step that is taken again is the same.

        Raises:
            DivergedError: this was one too many of the steps whose loss or gradient is not finite.
        """
        self._enter(work)
        torch.manual_seed(work.step * 65_537 + self._rank)
        began = time.process_time()
        mine = self.learner.share(work.examples, self._rank, self._world)
        metrics = self.learner.step(mine, work.stage_step, version=work.version)
        metrics["cpu_seconds"] = time.process_time() - began
        told = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._reports[work.step] = (work.stage.name, told)
        if work.publish is not None:
            self._version = work.publish
        self._watch(work, metrics)
        return told

    def save(self, step: int) -> Path | None:
        """Write a checkpoint, and into it what was reported since the last: no driver may live to hear of it.

        Args:
            step: the next one to take.

        Returns:
            Where it is, on rank 0.
        """
        state = self.learner.state() | {
            "reports": self._reports,
            "skipped_in_a_row": self._skipped,
            "version": self._version,
        }
        self._reports = {}
        weights = self.learner.saved()
        if self._rank != 0:
            return None
        return checkpoint.save(Path(self._config.folder), step, self.learner.model, self.tokenizer, state, weights)

    def _watch(self, work: Work, metrics: Mapping[str, float]) -> None:
        """Count steps that were skipped, and write down what they were to learn from."""
        if "skipped" not in metrics:
            self._skipped = 0
            return
        self._skipped += 1
        if self._rank == 0:
            self._write_down(work, metrics)
        if self._skipped >= self._config.max_skipped:
            raise DivergedError(
                f"{self._skipped} steps in a row, the last of them step {work.step}, had a loss or a gradient that is "
                f"not finite and were skipped; their groups are in {self._config.errors}: look there for rewards or "
                "log-probabilities that are no numbers, else lower the learning rate or max_grad_norm and resume"
            )

    def _write_down(self, work: Work, metrics: Mapping[str, float]) -> None:
        groups = [
            {
                "task": example.task_id,
                "prompt": self.tokenizer.decode(list(example.prompt)),
                "candidates": [
                    {
                        "text": self.tokenizer.decode(list(row.ids)),
                        "reward": _said(row.reward),
                        "behaviour": [_said(value) for value in row.behaviour],
                        "sources": row.sources,
                    }
                    for row in example.rows
                ],
            }
            for example in work.examples
        ]
        figures = {name: _said(value) for name, value in metrics.items()}
        record = {"step": work.step, "stage": work.stage.name, "metrics": figures, "groups": groups}
        path = Path(self._config.errors) / f"step-{work.step}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1))

    def _enter(self, work: Work) -> None:
        current = self.learner.stage
        if current is not None and current.name == work.stage.name:
            return
        if self._state is not None:
            same = self._state["stage"] == work.stage.name
            self.learner.restore(self._state, work.stage if same else None)
            self._state = None
            if same:
                return
        self.learner.begin(work.stage)


def _said(value: float) -> float | str:
    """A number as JSON can say it."""
    return value if math.isfinite(value) else str(value)
