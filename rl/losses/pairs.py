"""What every objective on pairs shares: how much a pair in the wrong order, or too close, costs."""

from torch import Tensor
from torch.nn.functional import softplus

from rl.losses.candidates import Term
from rl.losses.choices import PairForm, PairNorm


def pair_loss(
    scores: Tensor,
    pairs: Tensor,
    *,
    form: PairForm = "hinge",
    beta: float = 1.0,
    margin: float | Tensor = 0.0,
    per: PairNorm = "pair",
) -> Term:
    """Make the first of each pair score higher than the second.

    Args:
        scores: [B, K] of each candidate.
        pairs: [B, K, K] True where the first candidate should be ahead of the second.
        form: how a pair is charged.
        beta: what differences of scores are multiplied by.
        margin: by which the first should be ahead, after ``beta``; one for all, or [B, K, K].
        per: what the sum is divided by.

    Returns:
        The sum over the pairs, and the number of what it is divided by.
    """
    asked = margin[pairs] if isinstance(margin, Tensor) else margin
    excess = beta * (scores[:, None, :] - scores[:, :, None])[pairs] + asked  # the second over the first
    losses = excess.clamp(min=0) if form == "hinge" else softplus(excess)
    if per == "task":
        count = scores.new_tensor(len(scores))
    else:
        count = pairs.sum() if per == "pair" else (losses.detach() > 0).sum()
    return Term(losses.sum(), count)
