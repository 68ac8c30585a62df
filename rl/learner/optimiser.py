"""How weights move: Muon for hidden matrices with AdamW for the rest, or AdamW alone."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class OptimiserConfig(BaseModel):
    """Learning rates and their schedule over one stage: linear warm-up, then linear decay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["muon", "adamw"] = "muon"
    """Muon learns to copy in half the time of AdamW at this scale; AdamW is the usual choice for large models."""
    lr: float = Field(default=2e-3, gt=0, lt=1)
    """Peak learning rate of AdamW."""
    muon_lr: float = Field(default=2e-2, gt=0, lt=1)
    """Peak learning rate of Muon, for the matrices between embedding and head."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the stage's steps until the peak."""
    floor: float = Field(default=0.02, ge=0, le=1)
    """Share of the peak that is left at the end."""
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    max_grad_norm: float = Field(default=1.0, gt=0)

    def scale(self, step: int, steps: int) -> float:
        """The learning rate at a step, as a share of its peak.

        Args:
            step: from 0.
            steps: of the whole stage.
        """
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, steps - rising)
        return 1 - (1 - self.floor) * done


class Optimiser:
    """One or two torch optimisers that step together."""

    def __init__(self, model: nn.Module, config: OptimiserConfig) -> None:
        self.config = config
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        hidden = _hidden_matrices(model) if config.kind == "muon" else []
        known = {id(parameter) for parameter in hidden}
        rest = [parameter for parameter in self.parameters if id(parameter) not in known]
        self._parts: list[tuple[torch.optim.Optimizer, float]] = []
        if hidden:
            muon = torch.optim.Muon(
                hidden, lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="original"
            )
            self._parts.append((muon, config.muon_lr))
        if rest:
            adamw = torch.optim.AdamW(rest, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
            self._parts.append((adamw, config.lr))

    def step(self, scale: float) -> float:
        """Clip, update, and clear the gradients; returns their norm before clipping.

        Args:
            scale: share of the peak learning rates.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        for optimiser, lr in self._parts:
            for group in optimiser.param_groups:
                group["lr"] = lr * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(norm)

    def state(self) -> list[dict[str, object]]:
        """What a checkpoint keeps."""
        return [optimiser.state_dict() for optimiser, _ in self._parts]

    def restore(self, state: list[dict[str, object]]) -> None:
        for (optimiser, _), part in zip(self._parts, state, strict=True):
            optimiser.load_state_dict(part)


def _hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    ends = {
        id(parameter)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or name.endswith("lm_head")
        for parameter in module.parameters(recurse=False)
    }
    return [p for p in model.parameters() if p.ndim == 2 and p.requires_grad and id(p) not in ends]
