"""Which optimiser, and how its learning rates go over a stage."""

import math
from typing import Literal

from pydantic import Field

from rl.config import Strict


class OptimiserConfig(Strict):
    """Learning rates and their schedule over one stage: linear warm-up, then a decay."""

    kind: Literal["muon", "adamw"] = "muon"
    """Muon learns to copy in half the time of AdamW at this scale; AdamW is the usual choice for large models."""
    lr: float = Field(default=2e-3, gt=0, lt=1)
    """Peak learning rate of AdamW."""
    muon_lr: float = Field(default=2e-2, gt=0, lt=1)
    """Peak learning rate of Muon, for the matrices between embedding and head."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the stage's steps until the peak."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls from its peak to the floor; a constant one stays at the peak."""
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
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return 1 - (1 - self.floor) * done
