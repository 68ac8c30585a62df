"""One step of learning: a plain class, with or without Ray, alone or as one rank of many."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from executors.errors import ConfigError
from rl.data.batch import Batch
from rl.data.examples import Example
from rl.data.packing import share
from rl.learner import ranks
from rl.learner.optimiser import OptimiserConfig, Steps
from rl.learner.reference import Reference
from rl.learner.scoring import Packing, Reading, Scorer, within
from rl.learner.sharding import Footprint, paced, shard
from rl.losses.candidates import Candidates, Term
from rl.losses.metrics import read_metrics
from rl.losses.objective import Objective
from rl.models.lora import adapter_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What stays the same over the steps of one stage."""

    name: str
    objective: Objective
    optimiser: OptimiserConfig
    steps: int


class Learner:
    """Moves a policy by ranked candidates.

    Several ranks learn as one: each takes its share of a step's examples, every term is divided by what all of them
    have read together, and the gradients are summed before the update.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pad_id: int,
        packing: Packing = "auto",
        max_tokens: int | None = None,
        footprint: Footprint = Footprint(),
        gpu: bool = False,
    ) -> None:
        """
        Args:
            model: the policy; where only some of its parameters require gradients, only those learn.
            pad_id: token that fills rows.
            packing: see ``Scorer``.
            max_tokens: see ``Scorer``; a step may have any number of tokens.
            footprint: how the ranks hold it, and what it takes.
            gpu: whether to put it on this process's GPU; without, it stays where it is.

        Raises:
            ConfigError: there are no ranks to share it among.
        """
        if footprint.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.sharding = shard(model, footprint, gpu=gpu)
        self.model = model
        self.pad_id = pad_id
        self.scorer = Scorer(model, pad_id, packing=packing, max_tokens=max_tokens)
        self.scorer.precision = footprint.dtype
        self.skipped = 0
        """Steps that changed nothing, since their loss or gradient was not finite."""
        self.step_count = 0
        self.tokens = 0
        """Read by this rank, padding left out; a prompt that candidates share counts once."""
        self.stage: Stage | None = None
        self.optimiser: Steps | None = None
        self.reference: Reference | None = None
        """What the stage began with, where its objective compares with that."""

    def begin(self, stage: Stage) -> None:
        """Start a stage: its optimiser begins afresh, and what it compares with is the model as it is.

        Raises:
            ConfigError: its objective or its optimiser needs what ranks with shares do not have.
        """
        if stage.objective.needs_reference and self.sharding.lockstep:
            raise ConfigError(
                f"objective {stage.objective.kind} compares with the weights of the stage's beginning, which ranks "
                "that share a model out do not keep; leave kl_weight and reference terms out, or take "
                "learner.strategy ddp"
            )
        self.stage = stage
        self.optimiser = self.sharding.optimiser(stage.optimiser)
        self.scorer.reads = self.sharding.reads
        self.reference = Reference(self.model) if stage.objective.needs_reference else None

    def step(self, examples: Sequence[Example], stage_step: int, *, version: int | None = None) -> dict[str, float]:
        """Learn from the ranked candidates of some tasks; returns what to log.

        A step whose loss or gradient is not finite changes nothing but the count of such steps, and has ``skipped``.
        The losses, and what is told of the candidates, are those of the whole batch; what reading them took is told of
        this rank's share.

        Args:
            examples: this rank's share.
            stage_step: from 0, for the learning rate.
            version: of the policy as it is, to tell how stale its own candidates are; None where nobody counts.
        """
        if self.stage is None or self.optimiser is None:
            raise RuntimeError("begin(stage) comes before step()")
        self.model.train()
        batch = self.scorer.lay_out(examples, observations=self.stage.objective.needs_observations)
        reference = self._referred(batch)
        reading = self._read(batch)
        candidates = batch.candidates(reading.scores, reference=reference, version=version)
        values = _values(self.stage.objective.terms(candidates, ranks.most(batch.padded_length, self.model.device)))
        loss = torch.stack(list(values.values())).sum()
        metrics = ranks.summed({f"loss/{name}": value.detach() for name, value in values.items()})
        metrics = {name: float(value) for name, value in metrics.items()}
        metrics["loss"] = sum(metrics.values())
        scale = self.stage.optimiser.scale(stage_step, self.stage.steps)
        norm = math.nan
        if math.isfinite(metrics["loss"]):
            if batch.pieces:
                (loss * self.sharding.gradient_scale).backward()
            reading.backward()
            self.sharding.collect()
            norm = self.optimiser.step(scale)
        if not math.isfinite(norm):
            self.skipped += 1
            return metrics | {"skipped": 1.0, "grad_norm": norm, "lr_scale": scale}
        self.step_count += 1
        self.tokens += batch.tokens
        figures = _figures(self.stage.objective.metrics(candidates))
        return metrics | {"grad_norm": norm, "lr_scale": scale} | figures | _waste(batch, reading.again)

    def _read(self, batch: Batch) -> Reading:
        """Read a batch, in step with the other ranks where they wait for each other."""
        if not self.sharding.lockstep:
            return Reading(self.scorer, batch)
        device = self.model.device
        batch = paced(batch, self.pad_id, device)
        kept = ranks.least(within(batch.pieces, self.scorer.budget), device)
        return Reading(self.scorer, batch, kept=kept, back=self.sharding.backward)

    def _referred(self, batch: Batch) -> Tensor | None:
        """[B, K, T] how likely the weights that the stage began with find a batch; None where nobody asks."""
        if self.reference is None:
            return None
        precision, device = self.scorer.precision, self.model.device.type
        with self.reference.in_place(), torch.autocast(device, precision, enabled=precision is not None):
            return self.scorer.score(batch)

    def share(self, examples: Sequence[Example], rank: int, world: int) -> list[Example]:
        """One rank's share of a step's examples: groups stay whole, and each rank reads about as many tokens."""
        return share(examples, rank, world, packed=self.scorer.layout.packed)

    def lay_out(self, examples: Sequence[Example]) -> Batch:
        """The candidates of some tasks, as the model reads them best."""
        return self.scorer.lay_out(examples)

    def score(self, batch: Batch) -> Candidates:
        """The candidates of a batch, and how likely the model finds their tokens."""
        return batch.candidates(self.scorer.score(batch))

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the parameters that learn, by name, to publish; on rank 0, and all ranks have to ask."""
        names = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        whole = ((name, _array(tensor)) for name, tensor in self.sharding.whole(names) if ranks.mine() == 0)
        return dict(whole)

    def saved(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model, by name; on rank 0, and all ranks have to ask.

        Of a model with an adapter only that is kept.
        """
        names = set(adapter_names(self.model)) or None
        return {name: tensor.cpu() for name, tensor in self.sharding.whole(names) if ranks.mine() == 0}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {
            "step_count": self.step_count,
            "tokens": self.tokens,
            "skipped": self.skipped,
            "stage": self.stage.name if self.stage else None,
            "optimiser": self.optimiser.state() if self.optimiser else None,
            "reference": self.reference.state() if self.reference else None,
        }

    def restore(self, state: Mapping[str, Any], stage: Stage | None) -> None:
        """Continue from a checkpoint's state, in the stage that it was saved in.

        Raises:
            DataError: it is of another model, or of a stage with another optimiser or objective.
        """
        self.step_count = state.get("step_count", 0)
        self.tokens = state.get("tokens", 0)
        self.skipped = state.get("skipped", 0)
        if stage is not None:
            self.begin(stage)
            assert self.optimiser is not None
            self.optimiser.restore(state["optimiser"])
            if self.reference is not None:
                self.reference.restore(state.get("reference"))


def weights_of(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """A copy of those of a model's parameters that learn, by name; tied ones once."""
    return {name: _array(p) for name, p in model.named_parameters() if p.requires_grad}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy().copy()


def _values(terms: Mapping[str, Term]) -> dict[str, Tensor]:
    """Each term over what all ranks have read together; summed over the ranks they are the terms of the whole batch."""
    counts = ranks.summed({n: term.count.detach().float() for n, term in terms.items() if term.count is not None})
    return {name: t.total / counts[name].clamp(min=1) if name in counts else t.total for name, t in terms.items()}


def _waste(batch: Batch, again: int) -> dict[str, float]:
    """What reading a batch took, beside what it would take with all candidates padded to the longest of them."""
    if not batch.pieces:
        return {"left_out": batch.left_out}
    return {
        "left_out": batch.left_out,
        "positions": batch.positions,
        "positions_again": again,
        "positions_saved": 1 - batch.positions / (batch.count * batch.padded_length),
        "padding": 1 - batch.tokens / batch.positions,
        "prompts_shared": 1 - batch.documents / batch.count,
    }


def _figures(metrics: Mapping[str, Term]) -> dict[str, float]:
    """The metrics of all ranks' candidates together; those that there was nothing to count for are left out."""
    totals = ranks.summed({name: term.total.float() for name, term in metrics.items()})
    counts = ranks.summed({name: term.count.float() for name, term in metrics.items() if term.count is not None})
    return read_metrics({name: Term(total, counts.get(name)) for name, total in totals.items()})
