"""One step of learning: a plain class, with or without Ray, alone or as one rank of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from rl.data.batch import Batch, Piece, collate
from rl.data.examples import Example
from rl.learner.optimiser import Optimiser, OptimiserConfig
from rl.losses.candidates import Candidates, Term
from rl.losses.objective import Objective
from rl.losses.rrhf import rank_accuracy


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

    def __init__(self, model: PreTrainedModel, *, pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self.step_count = 0
        self.tokens = 0
        """Read by this rank, padding left out."""
        self.stage: Stage | None = None
        self.optimiser: Optimiser | None = None

    def begin(self, stage: Stage) -> None:
        """Start a stage: its optimiser begins afresh."""
        self.stage = stage
        self.optimiser = Optimiser(self.model, stage.optimiser)

    def step(self, examples: Sequence[Example], stage_step: int) -> dict[str, float]:
        """Learn from the ranked candidates of some tasks; returns what to log.

        The losses are those of the whole batch; how candidates are ordered is told of this rank's share.

        Args:
            examples: this rank's share.
            stage_step: from 0, for the learning rate.
        """
        if self.stage is None or self.optimiser is None:
            raise RuntimeError("begin(stage) comes before step()")
        self.model.train()
        batch = collate(examples, self.pad_id)
        candidates = self.score(batch)
        values = _values(self.stage.objective.terms(candidates, batch.padded_length))
        loss = torch.stack(list(values.values())).sum()
        if examples:
            loss.backward()
        _sum_gradients(self.model)
        scale = self.stage.optimiser.scale(stage_step, self.stage.steps)
        norm = self.optimiser.step(scale)
        self.step_count += 1
        self.tokens += batch.tokens
        metrics = _over_ranks({f"loss/{name}": value.detach() for name, value in values.items()})
        metrics["loss"] = sum(metrics.values())
        return metrics | {"grad_norm": norm, "lr_scale": scale} | _rates(candidates)

    def score(self, batch: Batch) -> Candidates:
        """The candidates of a batch, and how likely the model finds their tokens."""
        device = self.model.device
        logprobs = torch.zeros(batch.mask.shape, device=device)
        for piece in batch.pieces:
            chosen = self._logprobs(piece)
            tasks, places = piece.place.to(device).unbind(-1)
            width = chosen.new_zeros(len(chosen), batch.mask.shape[-1] - chosen.shape[-1])
            logprobs = logprobs.index_put((tasks, places), torch.cat([chosen, width], dim=-1))
        mask = batch.mask.to(device)
        return Candidates(logprobs * mask, mask, batch.rewards.to(device), batch.called.to(device))

    def _logprobs(self, piece: Piece) -> Tensor:
        """[N, T] log-probability of each response token; the head is applied to the response positions only."""
        device = self.model.device
        decoder: Any = self.model.get_decoder()
        head: Any = self.model.get_output_embeddings()
        hidden = decoder(
            input_ids=piece.ids.to(device), attention_mask=piece.attention.to(device), use_cache=False
        ).last_hidden_state  # [N, L, D]
        index = piece.position.to(device)[..., None].expand(-1, -1, hidden.shape[-1])
        logits = head(hidden.gather(1, index))  # [N, T, V]
        target = piece.target.to(device)
        return -cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="none").view_as(target)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the parameters, by name, to publish."""
        return weights_of(self.model)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {
            "step_count": self.step_count,
            "tokens": self.tokens,
            "stage": self.stage.name if self.stage else None,
            "optimiser": self.optimiser.state() if self.optimiser else None,
        }

    def restore(self, state: Mapping[str, Any], stage: Stage | None) -> None:
        """Continue from a checkpoint's state, in the stage that it was saved in."""
        self.step_count = state.get("step_count", 0)
        self.tokens = state.get("tokens", 0)
        if stage is not None:
            self.begin(stage)
            assert self.optimiser is not None
            self.optimiser.restore(state["optimiser"])


def weights_of(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """A copy of a model's parameters, by name; tied ones once."""
    return {name: p.detach().float().cpu().numpy().copy() for name, p in model.named_parameters()}


def _values(terms: Mapping[str, Term]) -> dict[str, Tensor]:
    """Each term over what all ranks have read together; summed over the ranks they are the terms of the whole batch."""
    counts = {name: term.count.detach().float() for name, term in terms.items() if term.count is not None}
    if counts and _ranks() > 1:
        stacked = torch.stack(list(counts.values()))
        distributed.all_reduce(stacked)
        counts = dict(zip(counts, stacked.unbind(), strict=True))
    return {name: t.total / counts[name].clamp(min=1) if name in counts else t.total for name, t in terms.items()}


def _over_ranks(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The values summed over all ranks."""
    stacked = torch.stack(list(values.values()))
    if _ranks() > 1:
        distributed.all_reduce(stacked)
    return dict(zip(values, stacked.tolist(), strict=True))


def _sum_gradients(model: PreTrainedModel) -> None:
    """Make every rank's gradient the sum over all ranks."""
    if _ranks() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    offset = 0
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = flat[offset : offset + grad.numel()].view_as(grad).clone()
        offset += grad.numel()


def _ranks() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


@torch.no_grad()
def _rates(candidates: Candidates) -> dict[str, float]:
    """How the candidates are ordered, by log-probability and by decision; without such pairs, no rate."""
    better = candidates.better()
    tied = (better.flatten(1).sum(1) == 0).float().mean()
    rates = {"tied": tied, "candidates": candidates.valid.float().sum(-1).mean()}
    means = candidates.sums() / candidates.lengths().clamp(min=1)
    rates["rank_accuracy"] = rank_accuracy(means, candidates.rewards)
    other = better & (candidates.called[:, :, None] != candidates.called[:, None, :])
    decisions = candidates.decisions()
    rates["decision_accuracy"] = (decisions[:, :, None] > decisions[:, None, :])[other].float().mean()
    return {name: float(value) for name, value in rates.items() if not bool(torch.as_tensor(value).isnan())}
