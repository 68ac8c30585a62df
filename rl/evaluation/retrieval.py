"""How well a list of found tools answers a query: standard measures, and ToolGen's as its script computes it.

ToolGen's NDCG divides by the gain of the wanted tools that were found, in their best order, instead of all that were
wanted: what was missed costs nothing, and a system that returns less looks better.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from rl.evaluation.intervals import Ratio

DEPTHS = (1, 3, 5)


def ndcg(found: Sequence[str], wanted: Collection[str], k: int) -> float:
    """Discounted gain of the first ``k``, against the best that any list could have."""
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(set(wanted)))))
    return _gain(found, wanted, k) / ideal if ideal else 0.0


def legacy_ndcg(found: Sequence[str], wanted: Collection[str], k: int) -> float:
    """The same as published: against the best order of the wanted tools that the whole list has."""
    hits = len(set(found) & set(wanted))
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, hits)))
    return _gain(found, wanted, k) / ideal if ideal else 0.0


def reciprocal_rank(found: Sequence[str], wanted: Collection[str]) -> float:
    """One over the place of the first wanted tool; 0 where none is found."""
    return next((1 / place for place, name in enumerate(found, 1) if name in wanted), 0.0)


def retrieval_ratios(
    found: Sequence[Sequence[str]], wanted: Sequence[Collection[str]], depths: Sequence[int] = DEPTHS
) -> dict[str, Ratio]:
    """Every measure over some queries.

    Args:
        found: for each query, names in order, none twice.
        wanted: for each query, the names that should be there.
        depths: where lists are cut.

    Returns:
        By depth ``ndcg@k``, ``legacy_ndcg@k``, ``recall@k`` (of all wanted tools) and ``complete@k`` (queries all of
        whose tools are found); ``mrr``; and ``selected``, queries whose first tool is a wanted one.
    """
    pairs = list(zip(found, wanted, strict=True))
    ratios: dict[str, Ratio] = {"mrr": Ratio([reciprocal_rank(names, wishes) for names, wishes in pairs])}
    ratios["selected"] = Ratio([float(bool(names) and names[0] in wishes) for names, wishes in pairs])
    for k in depths:
        ratios[f"ndcg@{k}"] = Ratio([ndcg(names, wishes, k) for names, wishes in pairs])
        ratios[f"legacy_ndcg@{k}"] = Ratio([legacy_ndcg(names, wishes, k) for names, wishes in pairs])
        hits = [float(len(set(names[:k]) & set(wishes))) for names, wishes in pairs]
        ratios[f"recall@{k}"] = Ratio(hits, [float(len(set(wishes))) for _, wishes in pairs])
        complete = [float(hit == len(set(wishes))) for hit, (_, wishes) in zip(hits, pairs, strict=True)]
        ratios[f"complete@{k}"] = Ratio(complete)
    return ratios


def recalled(said: Sequence[str | None], tools: Sequence[str]) -> tuple[float, float]:
    """Accuracy, and F1 averaged over the tools, of what was said of each tool's documentation.

    Args:
        said: the tool that each came to; None for none that exists.
        tools: the tool that each is of.
    """
    right = Counter(tool for one, tool in zip(said, tools, strict=True) if one == tool)
    claimed, due = Counter(said), Counter(tools)
    scores = [2 * right[tool] / (claimed[tool] + due[tool]) for tool in due]
    return right.total() / len(tools), sum(scores) / len(scores)


def nearest(asked: np.ndarray, known: np.ndarray, names: Sequence[str], depth: int) -> list[list[str]]:
    """By cosine, the names whose vectors are nearest to each query's, best first; of equals the earlier first.

    Args:
        asked: [Q, d] of the queries.
        known: [N, d] of the names.
        names: [N]
        depth: how many for each query.
    """
    unit = [vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) for vectors in (asked, known)]
    order: list[list[int]] = np.argsort(-(unit[0] @ unit[1].T), axis=1, kind="stable")[:, :depth].tolist()
    return [[names[place] for place in row] for row in order]


def values(ratios: Mapping[str, Ratio]) -> dict[str, float]:
    """The plain figures, for a table."""
    summed = {name: ratio.arrays() for name, ratio in ratios.items()}
    return {name: float(parts.sum() / wholes.sum()) for name, (parts, wholes) in summed.items()}


def _gain(found: Sequence[str], wanted: Collection[str], k: int) -> float:
    return sum(1 / math.log2(place + 2) for place, name in enumerate(found[:k]) if name in wanted)
