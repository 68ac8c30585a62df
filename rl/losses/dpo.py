"""Preference: widen the lead of the better over the worse, as seen from a reference (DPO, Rafailov et al. 2023)."""

import torch
from torch import Tensor

from rl.losses.candidates import Candidates, Term
from rl.losses.choices import PairChoice
from rl.losses.pairs import pair_loss


def dpo_loss(
    candidates: Candidates,
    *,
    beta: float = 0.1,
    gamma: float = 0.0,
    pairs: PairChoice = "all",
    length_norm: bool = False,
    reference_free: bool = False,
    tie_gap: float = 0.0,
) -> Term:
    """Minus the log-probability that the better of two wins, by how much likelier each is than under the reference.

    Args:
        candidates: B tasks; with the reference's log-probabilities, unless it is ``reference_free``.
        beta: how sharply; small for what may move far from the reference.
        gamma: by which the better should win, after ``beta``.
        pairs: which are compared.
        length_norm: take the mean per token instead of the sum.
        reference_free: leave the reference out; with ``length_norm`` this is SimPO (Meng et al. 2024).
        tie_gap: rewards that are no further apart are ties.

    Returns:
        The sum over the pairs, and their number.
    """
    scores = candidates.sums()
    if not reference_free:
        scores = scores - candidates.reference_sums()
    if length_norm:
        scores = scores / candidates.lengths().clamp(min=1)
    better = candidates.better(tie_gap)
    chosen = better if pairs == "all" else better & _extremes(candidates)
    return pair_loss(scores, chosen, form="logistic", beta=beta, margin=gamma, per="pair")


def _extremes(candidates: Candidates) -> Tensor:
    """[B, K, K] True for the best candidate of each task against the worst; the first of those tied."""
    worst = candidates.known_rewards().nan_to_num(nan=torch.inf).argmin(-1)
    places = torch.arange(candidates.rewards.shape[-1], device=worst.device)
    is_best, is_worst = places == candidates.best()[:, None], places == worst[:, None]
    return is_best[:, :, None] & is_worst[:, None, :]
