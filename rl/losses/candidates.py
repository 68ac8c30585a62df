"""The tensor that every objective reads: the candidates of some tasks and how likely the policy finds them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Term:
    """A loss before it is one: a sum, and how many things it is over.

    Kept apart so that ranks that share a batch can divide by what all of them have read together.
    """

    total: Tensor
    """[] carries the gradient."""
    count: Tensor | None
    """[] without gradient; None for a sum that stays one."""

    @property
    def value(self) -> Tensor:
        """[] the loss, of this rank alone."""
        return self.total if self.count is None else self.total / self.count.clamp(min=1)


@dataclass(frozen=True, slots=True)
class Candidates:
    """B tasks with at most K candidates of at most T tokens."""

    logprobs: Tensor
    """[B, K, T] log-probability of each token under the policy; 0 where there is none."""
    mask: Tensor
    """[B, K, T] True where a token is the policy's own: neither padding nor observation."""
    rewards: Tensor
    """[B, K] NaN where a task has fewer than K candidates."""
    called: Tensor
    """[B, K] True where the candidate set out to call a tool."""

    @property
    def valid(self) -> Tensor:
        """[B, K] True where there is a candidate."""
        return ~self.rewards.isnan()

    def sums(self) -> Tensor:
        """[B, K] log-probability of each whole candidate."""
        return (self.logprobs * self.mask).sum(-1)

    def lengths(self) -> Tensor:
        """[B, K] the policy's own tokens of each candidate."""
        return self.mask.sum(-1)

    def decisions(self) -> Tensor:
        """[B, K] log-probability of each candidate's first token: whether to call, or to answer."""
        return self.logprobs[..., 0]

    def best(self) -> Tensor:
        """[B] index of the best candidate of each task; the first of those tied."""
        return self.rewards.nan_to_num(nan=-torch.inf).argmax(-1)

    def better(self) -> Tensor:
        """[B, K, K] True where the reward of the first candidate is higher than that of the second."""
        return self.rewards[:, :, None] > self.rewards[:, None, :]
