"""Figures with 95% intervals, by resampling the questions (and the seeds, where there are several)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure before it is one: a sum over questions divided by another."""

    parts: Sequence[float]
    """Each question's share of the numerator."""
    wholes: Sequence[float] | None = None
    """Each question's share of the denominator; 1 for each where left out, which makes the figure a mean."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        parts = np.asarray(self.parts, dtype=float)
        return parts, np.ones_like(parts) if self.wholes is None else np.asarray(self.wholes, dtype=float)

    def among(self, chosen: Sequence[bool]) -> "Ratio":
        """The same figure of some of the questions alone."""
        parts, wholes = self.arrays()
        mask = np.asarray(chosen, dtype=float)
        return Ratio((parts * mask).tolist(), (wholes * mask).tolist())


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and its 95% interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def figure(ratio: Ratio, seed: int = 0) -> Figure:
    """The value of a ratio and its percentile bootstrap interval over questions; NaN where the denominator is 0."""
    parts, wholes = ratio.arrays()
    value = _divide(parts.sum(), wholes.sum())
    sums = _resampled([parts, wholes], seed)
    return _interval(value, _divide(sums[0], sums[1]))


def difference(after: Sequence[Ratio], before: Sequence[Ratio], seed: int = 0) -> Figure:
    """How much a ratio rose, on the same questions, averaged over seeds.

    Args:
        after: for each seed, the ratio afterwards.
        before: for each seed, the ratio before, question by question the same.

    Returns:
        The mean difference over the seeds; its interval resamples seeds, and questions in pairs. Seeds that were asked
        the same questions draw the same ones, so that asking them again makes nothing surer.
    """
    values, draws = [], []
    for late, early in zip(after, before, strict=True):
        (late_parts, late_wholes), (early_parts, early_wholes) = late.arrays(), early.arrays()
        arrays = [late_parts, late_wholes, early_parts, early_wholes]
        values.append(_divide(arrays[0].sum(), arrays[1].sum()) - _divide(arrays[2].sum(), arrays[3].sum()))
        sums = _resampled(arrays, seed)
        draws.append(_divide(sums[0], sums[1]) - _divide(sums[2], sums[3]))
    seeds = np.random.default_rng(seed).integers(len(draws), size=(RESAMPLES, len(draws)))
    pooled = np.stack(draws)[seeds, np.arange(RESAMPLES)[:, None]].mean(1)
    return _interval(float(np.mean(values)), pooled)


def mean_over_seeds(ratios: Sequence[Ratio], seed: int = 0) -> Figure:
    """The mean of a ratio over seeds; its interval resamples seeds and questions, see ``difference``."""
    nothing = [Ratio(np.zeros(len(ratio.parts)).tolist()) for ratio in ratios]
    return difference(ratios, nothing, seed)


def figures(ratios: Mapping[str, Ratio]) -> dict[str, Figure]:
    """Each ratio as a figure."""
    return {name: figure(ratio) for name, ratio in ratios.items()}


def _resampled(arrays: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """[RESAMPLES] sums of each array over the same resampled questions."""
    count = len(arrays[0])
    chosen = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    return [array[chosen].sum(1) for array in arrays]


def _divide(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray | float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part, dtype=float) / np.asarray(whole, dtype=float)


def _interval(value: np.ndarray | float, draws: np.ndarray | float) -> Figure:
    known = np.asarray(draws)[~np.isnan(draws)]
    if not len(known):
        return Figure(float(value), float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Figure(float(value), float(low), float(high))
