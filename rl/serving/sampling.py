"""Draws the next token of many rows at once, each by its own seed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rollouts.types import Sampling


def uniform(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each seed and position (SplitMix64): the same whatever else is in the batch.

    Args:
        seeds: [R] non-negative integers.
        positions: [R] index of the token within its reply.
    """
    with np.errstate(over="ignore"):
        state = seeds.astype(np.uint64) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def choose(logits: Tensor, samplings: Sequence[Sampling], uniforms: np.ndarray) -> Tensor:
    """The next token of each row: the likeliest at temperature 0, else drawn by inverting the distribution.

    Args:
        logits: [R, V].
        samplings: R, how each row is drawn.
        uniforms: [R] in [0, 1).

    Returns:
        [R] token ids.
    """
    tokens = logits.argmax(-1)
    drawn = [index for index, sampling in enumerate(samplings) if sampling.temperature > 0]
    if not drawn:
        return tokens
    rows = torch.tensor(drawn, device=logits.device)
    temperatures = torch.tensor([samplings[index].temperature for index in drawn], device=logits.device)
    probabilities = (logits[rows].double() / temperatures[:, None]).softmax(-1)
    if any(samplings[index].top_k or samplings[index].top_p < 1 for index in drawn):
        probabilities = _truncated(probabilities, [samplings[index] for index in drawn])
    cumulative = probabilities.cumsum(-1)
    levels = torch.from_numpy(uniforms[drawn]).to(cumulative.device)[:, None] * cumulative[:, -1:]
    tokens[rows] = torch.searchsorted(cumulative, levels, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return tokens


def _truncated(probabilities: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """[R, V] with all but each row's top-k and top-p (nucleus) tokens at 0."""
    ordered, order = probabilities.sort(-1, descending=True)
    ranks = torch.arange(ordered.shape[-1], device=ordered.device)[None, :]
    device = ordered.device
    top_k = torch.tensor([sampling.top_k or ordered.shape[-1] for sampling in samplings], device=device)[:, None]
    top_p = torch.tensor([sampling.top_p for sampling in samplings], device=device)[:, None]
    before = ordered.cumsum(-1) - ordered
    kept = (ranks < top_k) & (before < top_p) | (ranks == 0)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * kept)
