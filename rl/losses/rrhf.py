"""Ranking: make candidates as likely as their rewards rank them (RRHF, Yuan et al. 2023; TRICE, equation 5)."""

from torch import Tensor

from rl.losses.candidates import Candidates, Term
from rl.losses.choices import PairForm, PairNorm
from rl.losses.pairs import pair_loss


def rrhf_loss(
    logprobs: Tensor,
    rewards: Tensor,
    *,
    form: PairForm = "hinge",
    beta: float = 1.0,
    margin: float = 0.0,
    gap_margin: float = 0.0,
    tie_gap: float = 0.0,
    per: PairNorm = "task",
) -> Term:
    """Make candidates as likely as their rewards rank them.

    As published, every pair with a higher reward for i than for j adds the amount by which j is still the likelier of
    the two; pairs in order, and ties, add nothing.

    Args:
        logprobs: [B, K] mean log-probability per token of K candidates.
        rewards: [B, K] their rewards; NaN where a task has fewer than K.
        form: see ``pair_loss``.
        beta: see ``pair_loss``.
        margin: by which i has to be the likelier.
        gap_margin: added to the margin for each unit that the rewards of i and j are apart.
        tie_gap: rewards that are no further apart are ties.
        per: see ``pair_loss``.

    Returns:
        The sum over pairs, and B, or the number of pairs.
    """
    gaps = rewards[:, :, None] - rewards[:, None, :]  # [B, i, j]
    return pair_loss(logprobs, gaps > tie_gap, form=form, beta=beta, margin=margin + gap_margin * gaps, per=per)


def rrhf_d_loss(candidates: Candidates, *, margin: float = 1.0, scale: float = 4.0) -> Term:
    """Rank decisions by the decision, and everything else by the whole candidate.

    Under ``rrhf_loss`` one decision is a twentieth of a call and a quarter of a short answer, so the shorter mode wins
    whatever the rewards say. Here a pair that differs in mode (one calls, one answers) is compared by its first token
    alone, with a margin; a pair of one mode by the log-probability of the whole candidate over a constant.

    Args:
        candidates: B tasks.
        margin: by which the better decision has to be the likelier, in nats.
        scale: what whole log-probabilities are divided by, to weigh like a decision.

    Returns:
        The sum over the pairs whose rewards differ, and the number of those whose order is still wrong.
    """
    better = candidates.better()  # [B, i, j]
    decisions, sums = candidates.decisions(), candidates.sums() / scale
    other_mode = candidates.called[:, :, None] != candidates.called[:, None, :]
    excess = sums[:, None, :] - sums[:, :, None]
    excess = excess.where(~other_mode, decisions[:, None, :] - decisions[:, :, None] + margin)
    hinge = excess.clamp(min=0)[better]
    return Term(hinge.sum(), (hinge.detach() > 0).sum())
