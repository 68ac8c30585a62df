"""Draws the next token of many rows at once, each in its own way and by its own seed."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rollouts.types import Sampling

_BLOCK = 64
"""Tokens that are skipped at once in search of the one that a number falls on."""
_BELOW_ONE = 1 - 2.0**-40
"""What keeps a rounded number within its part."""
_LIKELIEST = 256
"""Tokens among which a nucleus is looked for before all tokens are sorted."""
_COLDEST = 1e-6
"""Temperature below which logits would overflow; the likeliest token is as good as certain there."""
_STRONGEST = 1e30
"""Bias that a logit takes without overflowing."""


def objection(sampling: Sampling, seed: int, vocabulary: int) -> str:
    """Why replies cannot be drawn in this way; empty where they can.

    Args:
        sampling: how.
        seed: of the reply.
        vocabulary: tokens that the model has.
    """
    if not 0 <= seed < 1 << 64:
        return f"its seed is {seed}; give one from 0 to 2**64 - 1"
    if sampling.max_tokens < 1:
        return f"max_tokens is {sampling.max_tokens}; ask for one token at least"
    for name in ("temperature", "top_p", "min_p"):
        if not 0 <= (value := getattr(sampling, name)) < math.inf:
            return f"{name} is {value}; give a finite number that is not negative"
    for name in ("top_k", "top_logprobs"):
        if getattr(sampling, name) < 0:
            return f"{name} is {getattr(sampling, name)}; 0 stands for none"
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < vocabulary:
            return f"logit_bias names token {token}; there are those from 0 to {vocabulary - 1}"
        if not bias <= _STRONGEST:
            told = f"give a number of at most {_STRONGEST:g}, or minus infinity to leave the token out"
            return f"the bias of token {token} is {bias}; {told}"
    return ""


def uniform(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each seed and position (SplitMix64): the same whatever else is in the batch.

    Args:
        seeds: [R] non-negative integers.
        positions: [R] index of the token within its reply.
    """
    state = seeds.astype(np.uint64) + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def steered(logits: Tensor, samplings: Sequence[Sampling], allowed: Sequence[np.ndarray | None]) -> Tensor:
    """Logits with each row's bias added, and with all but its allowed tokens at minus infinity.

    Args:
        logits: [R, V].
        samplings: R, how each row is drawn.
        allowed: R, token ids; None where any may come.

    Returns:
        [R, V]; the same tensor where there is nothing to do.
    """
    if all(ids is None for ids in allowed) and not any(sampling.logit_bias for sampling in samplings):
        return logits
    steered = logits.clone()
    for row, (sampling, ids) in enumerate(zip(samplings, allowed, strict=True)):
        if sampling.logit_bias:
            tokens = torch.tensor(list(sampling.logit_bias), device=logits.device)
            steered[row, tokens] += torch.tensor(list(sampling.logit_bias.values()), device=logits.device)
        if ids is not None:
            kept = torch.from_numpy(ids).to(logits.device)
            values = steered[row, kept]
            steered[row] = -torch.inf
            steered[row, kept] = values
    return steered


def choose(logits: Tensor, samplings: Sequence[Sampling], uniforms: np.ndarray) -> Tensor:
    """The next token of each row: the likeliest at temperature 0, else drawn by inverting the distribution.

    Args:
        logits: [R, V].
        samplings: R, how each row is drawn.
        uniforms: [R] in [0, 1).

    Returns:
        [R] token ids.
    """
    greedy = [row for row, sampling in enumerate(samplings) if sampling.temperature <= 0]
    limited = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0 and _is_limited(sampling)]
    free = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0 and not _is_limited(sampling)]
    tokens = torch.empty(len(samplings), dtype=torch.long, device=logits.device)
    for rows, pick in ((greedy, _likeliest), (free, _drawn), (limited, _drawn_from_likeliest)):
        if rows:
            every = len(rows) == len(samplings)
            index = slice(None) if every else torch.tensor(rows, device=logits.device)
            tokens[index] = pick(logits[index], [samplings[row] for row in rows], uniforms[rows])
    return tokens


def top(logprobs: Tensor, counts: Sequence[int]) -> list[tuple[tuple[int, float], ...]]:
    """For each row its likeliest tokens, with their log-probabilities; as many as it asked for.

    Args:
        logprobs: [R, V].
        counts: R.
    """
    most = min(max(counts), logprobs.shape[-1])
    values, ids = logprobs.topk(most, dim=-1)
    pairs = [tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), values.tolist(), strict=True)]
    return [row[:count] for row, count in zip(pairs, counts, strict=True)]


def _is_limited(sampling: Sampling) -> bool:
    return bool(sampling.top_k or sampling.top_p < 1 or sampling.min_p > 0)


def _likeliest(logits: Tensor, samplings: Sequence[Sampling], uniforms: np.ndarray) -> Tensor:
    return logits.argmax(-1)


def _probabilities(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    temperatures = [max(sampling.temperature, _COLDEST) for sampling in samplings]
    if set(temperatures) == {1.0}:
        return logits.softmax(-1)
    return (logits / torch.tensor(temperatures, device=logits.device)[:, None]).softmax(-1)


def _drawn(logits: Tensor, samplings: Sequence[Sampling], uniforms: np.ndarray) -> Tensor:
    """Tokens by their probabilities. The block that a number falls on is found first, then the token in it."""
    probabilities = _probabilities(logits, samplings)
    size = probabilities.shape[-1]
    if size % _BLOCK:
        probabilities = torch.nn.functional.pad(probabilities, (0, -size % _BLOCK))
    blocks = probabilities.view(len(probabilities), -1, _BLOCK)
    block, rest = _fallen(blocks.sum(-1), torch.from_numpy(uniforms).to(logits.device)[:, None])
    inside = blocks[torch.arange(len(blocks), device=logits.device), block[:, 0]]
    token, _ = _fallen(inside, rest)
    return (block * _BLOCK + token)[:, 0].clamp_(max=size - 1)


def _fallen(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Where numbers fall on a line that is divided by weights.

    Args:
        weights: [R, n], not all 0.
        uniforms: [R, 1] in [0, 1), of the line's whole length.

    Returns:
        [R, 1] the index of each part, of weight above 0; [R, 1] how far into that part, in [0, 1).
    """
    ends = weights.cumsum(-1, dtype=torch.float64)
    levels = ends[:, -1:] * uniforms * _BELOW_ONE
    index = torch.searchsorted(ends, levels, right=True).clamp_(max=ends.shape[-1] - 1)  # NaN falls beyond the last
    weight = weights.gather(-1, index)
    return index, ((levels - ends.gather(-1, index)) / weight + 1).clamp_(0, _BELOW_ONE)


def _drawn_from_likeliest(logits: Tensor, samplings: Sequence[Sampling], uniforms: np.ndarray) -> Tensor:
    """Tokens by their probabilities within top-k, top-p (nucleus) and min-p; the likeliest is always among them."""
    probabilities = _probabilities(logits, samplings)
    size = probabilities.shape[-1]
    device = logits.device
    top_k = torch.tensor([min(sampling.top_k or size, size) for sampling in samplings], device=device)[:, None]
    top_p = torch.tensor([sampling.top_p for sampling in samplings], device=device)[:, None]
    min_p = torch.tensor([sampling.min_p for sampling in samplings], device=device)[:, None]
    most = min(size, _LIKELIEST)
    while True:
        ordered, order = probabilities.topk(most, dim=-1)
        before = ordered.cumsum(-1) - ordered
        ranks = torch.arange(most, device=device)[None, :]
        kept = (ranks < top_k) & (before < top_p) & (ordered >= min_p * ordered[:, :1]) | (ranks == 0)
        if most == size or not kept[:, -1].any():
            break
        most = size
    index, _ = _fallen(ordered * kept, torch.from_numpy(uniforms).to(device)[:, None])
    return order.gather(-1, index).squeeze(-1)
