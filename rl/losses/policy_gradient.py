"""Policy gradients over groups of several writers: clipped where the policy wrote, corrected or imitated where not.

GRPO (Shao et al. 2024) with the repairs that became usual: advantages that are not divided by the group's spread and
sums that are not divided by each candidate's length (Dr. GRPO, Liu et al. 2025; DAPO, Yu et al. 2025), and a higher
bound above than below (DAPO). What others wrote, or old weights did, enters through truncated importance weights
(TOPR, Le Roux et al. 2025; TIS).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rl.losses.candidates import Candidates, Term
from rl.losses.choices import Baseline, Foreign
from rl.losses.reference import MAX_LOG_RATIO


@dataclass(frozen=True, slots=True)
class Shares:
    """What part each candidate takes in a policy gradient; one that takes none is left out."""

    ahead: Tensor
    """[B, K] its advantage; see ``advantages``."""
    log_ratio: Tensor
    """[B, K, T] how much likelier the policy is to write each token than its writer, in nats; 0 where not known."""
    known: Tensor
    """[B, K] True where the log-probabilities of its writer are known."""
    clipped: Tensor
    """[B, K] True for the policy's own, recent enough: the clipped surrogate."""
    corrected: Tensor
    """[B, K] True for somebody else's, or old: by an importance weight."""
    imitated: Tensor
    """[B, K] True for good ones whose writer's log-probabilities are not known: as if the weight were 1."""

    @property
    def part(self) -> Tensor:
        """[B, K] True where a candidate takes any part."""
        return self.clipped | self.corrected | self.imitated


def share(
    candidates: Candidates, *, baseline: Baseline, by_std: bool, foreign: Foreign, max_clipped_lag: int
) -> Shares:
    """Say what part each candidate takes.

    Args:
        candidates: B tasks. Where nobody noted who wrote them none is taken for the policy's own, and where nobody
            noted how likely their writers found them that is not known: nothing is guessed.
        baseline: see ``advantages``.
        by_std: see ``advantages``.
        foreign: see ``Foreign``.
        max_clipped_lag: versions behind up to which the policy's own candidates are clipped.
    """
    ahead = advantages(candidates, baseline=baseline, by_std=by_std)
    log_ratio, known = log_ratios(candidates)
    clipped = torch.zeros_like(known) if candidates.own is None else known & candidates.own
    if candidates.staleness is not None:
        clipped = clipped & (candidates.staleness <= max_clipped_lag)
    used = torch.full_like(known, foreign != "skip")
    imitated = used & candidates.valid & ~known & (ahead > 0)
    return Shares(ahead, log_ratio, known, clipped, used & known & ~clipped, imitated)


def advantages(candidates: Candidates, *, baseline: Baseline = "group", by_std: bool = False) -> Tensor:
    """[B, K] how much better each candidate is than its group; 0 where there is none.

    Args:
        candidates: B tasks.
        baseline: what rewards are compared with.
        by_std: divide by the group's standard deviation, as GRPO was published.
    """
    counts = candidates.counts()
    rewards = candidates.known_rewards().nan_to_num(nan=0.0)
    compared = counts
    if baseline == "own" and candidates.own is not None:
        own = counts * candidates.own
        compared = own.where(own.sum(-1, keepdim=True) > 0, counts)
    ahead = (rewards - _mean(rewards, compared)) * candidates.valid
    if not by_std:
        return ahead
    squares = (counts * (rewards - _mean(rewards, counts)) ** 2).sum(-1, keepdim=True)
    variance = squares / (counts.sum(-1, keepdim=True) - 1).clamp(min=1)
    return ahead / (variance.sqrt() + 1e-4)


def log_ratios(candidates: Candidates) -> tuple[Tensor, Tensor]:
    """``Shares.log_ratio`` and ``Shares.known`` of some candidates."""
    now = candidates.logprobs
    written = torch.full_like(now, torch.nan) if candidates.behaviour is None else candidates.behaviour
    missing = written.isnan()
    known = candidates.valid & ~(missing & candidates.mask).any(-1)
    log_ratio = candidates.own_tokens(now - written.where(~missing, now.detach()))
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO), known


def clipped_losses(shares: Shares, *, eps_low: float, eps_high: float) -> Tensor:
    """[B, K, T] the surrogate of proximal policy optimisation for each token, with a bound of its own on each side.

    Args:
        shares: of the candidates.
        eps_low: how far below 1 a ratio still counts.
        eps_high: how far above.
    """
    ratio, gain = shares.log_ratio.exp(), shares.ahead[..., None]
    return -(ratio * gain).minimum(ratio.clamp(1 - eps_low, 1 + eps_high) * gain)


def importance(shares: Shares, *, foreign: Foreign, cap: float) -> tuple[Tensor, Tensor]:
    """What each token of a corrected candidate counts, without gradient.

    Args:
        shares: of the candidates.
        foreign: ``topr`` or ``tis``; see ``Foreign``.
        cap: at most, for ``tis``.

    Returns:
        [B, K, T] the weights; and True where one was cut.
    """
    log_ratio = shares.log_ratio.detach()
    if foreign == "tis":
        ratio = log_ratio.exp()
        return ratio.clamp(max=cap), ratio > cap
    whole, bad = log_ratio.sum(-1, keepdim=True), (shares.ahead < 0)[..., None]
    weights = whole.clamp(max=0).exp().where(bad, whole.new_ones(()))
    return weights.expand_as(log_ratio), (bad & (whole > 0)).expand_as(log_ratio)


def token_sum(candidates: Candidates, values: Tensor, role: Tensor) -> Tensor:
    """[] the sum of [B, K, T] values over the own tokens of the candidates of a role, [B, K], copies counted."""
    kept = values.masked_fill(~(candidates.mask & role[..., None]), 0.0)
    return (kept.sum(-1) * candidates.counts()).sum()


def divisor(candidates: Candidates, part: Tensor, length: int | None) -> Tensor:
    """[] what a policy gradient is divided by, so that no candidate's own length tilts it.

    Args:
        candidates: B tasks.
        part: [B, K] True where a candidate takes part.
        length: None for the own tokens of all of them (DAPO); else that many tokens for each (Dr. GRPO).
    """
    counts = candidates.counts() * part
    return (counts * candidates.lengths()).sum() if length is None else counts.sum() * length


@torch.no_grad()
def gradient_metrics(
    candidates: Candidates, shares: Shares, *, eps_low: float, eps_high: float, foreign: Foreign, cap: float
) -> dict[str, Term]:
    """What to watch of a policy gradient, as sums and counts.

    Returns:
        ``clip_low``, ``clip_high``, ``clip_rate``: shares of the tokens of clipped candidates whose ratio is out of
        bounds on the side where that ends their gradient; ``importance_mean``, ``importance_cut``: of the tokens of
        corrected candidates, the mean weight, and the share whose weight was cut; ``drift``: mean log-probability that
        tokens have lost since they were written; and the shares of candidates ``on_policy``, which are clipped,
        ``foreign``, which take another part, and ``no_part``.
    """
    ratio, gain = shares.log_ratio.exp(), shares.ahead[..., None]
    low, high = (ratio < 1 - eps_low) & (gain < 0), (ratio > 1 + eps_high) & (gain > 0)
    counts = candidates.counts()

    def over(values: Tensor, role: Tensor) -> Term:
        return Term(token_sum(candidates, values.to(ratio.dtype), role), (counts * candidates.lengths() * role).sum())

    metrics = {"clip_low": over(low, shares.clipped), "clip_high": over(high, shares.clipped)}
    metrics["clip_rate"] = over(low | high, shares.clipped)
    metrics["drift"] = over(-shares.log_ratio, shares.known)
    if foreign != "skip":
        weights, cut = importance(shares, foreign=foreign, cap=cap)
        metrics["importance_mean"] = over(weights, shares.corrected)
        metrics["importance_cut"] = over(cut, shares.corrected)
        metrics["foreign"] = Term((counts * (shares.corrected | shares.imitated)).sum(), counts.sum())
    metrics["on_policy"] = Term((counts * shares.clipped).sum(), counts.sum())
    metrics["no_part"] = Term((counts * ~shares.part).sum(), counts.sum())
    return metrics


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """[B, 1] the mean of each task's values, each as often as it counts."""
    return (values * counts).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp(min=1)
