"""What the learner minimises, one switch apart."""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from rl.losses.candidates import Candidates, Term
from rl.losses.rrhf import rrhf_d_loss, rrhf_loss
from rl.losses.sft import sft_loss, sft_loss_as_coded

LengthNorm = Literal["tokens", "padded", "none"]


class _Objective(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def terms(self, candidates: Candidates, padded_length: int) -> dict[str, Term]:
        """The weighted terms by name; the sum of their values is the loss.

        Args:
            candidates: B tasks.
            padded_length: tokens of a padded row, prompt included; only the as-coded modes read it.
        """
        raise TypeError(f"{type(self).__name__} has to say what it minimises")


class Sft(_Objective):
    """Imitate the best candidate: behaviour cloning on demonstrations, best-of-n fine-tuning on groups."""

    kind: Literal["sft"] = "sft"
    decision_weight: float = Field(default=0.0, ge=0)
    """See ``sft_loss``."""

    def terms(self, candidates: Candidates, padded_length: int) -> dict[str, Term]:
        return {"sft": sft_loss(candidates, self.decision_weight)}


class Rrhf(_Objective):
    """RRHF as published (TRICE, equations 4 to 6), or as its script computes it."""

    kind: Literal["rrhf"] = "rrhf"
    weight: float = Field(default=1.0, ge=0)
    """Of the ranking term."""
    sft_weight: float = Field(default=1.0, ge=0)
    length_norm: LengthNorm = "tokens"
    """What a candidate's log-probability is divided by: its own tokens; the padded row, as coded; nothing."""
    length_penalty: float = 1.0
    """Exponent of that length."""

    def terms(self, candidates: Candidates, padded_length: int) -> dict[str, Term]:
        sums = candidates.sums()
        if self.length_norm == "padded":
            scores = sums / padded_length**self.length_penalty
            rank = Term(rrhf_loss(scores, candidates.rewards).total, None)  # as coded: summed over the batch
            sft = sft_loss_as_coded(candidates, padded_length)
        else:
            lengths = candidates.lengths().clamp(min=1) if self.length_norm == "tokens" else torch.ones_like(sums)
            rank = rrhf_loss(sums / lengths**self.length_penalty, candidates.rewards)
            sft = sft_loss(candidates)
        return {"rank": _weighted(self.weight, rank), "sft": _weighted(self.sft_weight, sft)}


class RrhfD(_Objective):
    """RRHF with decisions compared as decisions; see ``rrhf_d_loss``. The default."""

    kind: Literal["rrhf_d"] = "rrhf_d"
    weight: float = Field(default=1.0, ge=0)
    """Of the ranking term."""
    sft_weight: float = Field(default=1.0, ge=0)
    margin: float = Field(default=1.0, ge=0)
    scale: float = Field(default=4.0, gt=0)
    decision_weight: float = Field(default=8.0, ge=0)
    """See ``sft_loss``."""

    def terms(self, candidates: Candidates, padded_length: int) -> dict[str, Term]:
        rank = rrhf_d_loss(candidates, margin=self.margin, scale=self.scale)
        sft = sft_loss(candidates, self.decision_weight)
        return {"rank": _weighted(self.weight, rank), "sft": _weighted(self.sft_weight, sft)}


def _weighted(weight: float, term: Term) -> Term:
    return Term(weight * term.total, term.count)


Objective = Annotated[Sft | Rrhf | RrhfD, Field(discriminator="kind")]
