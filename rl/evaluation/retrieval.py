"""How well a list of found tools answers a query: standard measures, and ToolGen's as its script computes it.

ToolGen's NDCG divides by the gain of the wanted tools that were found, in their best order, instead of all that were
wanted: what was missed costs nothing, and a system that returns less looks better.
"""

import math
from collections.abc import Collection, Mapping, Sequence

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
        whose tools are found); and ``mrr``.
    """
    pairs = list(zip(found, wanted, strict=True))
    ratios: dict[str, Ratio] = {"mrr": Ratio([reciprocal_rank(names, wishes) for names, wishes in pairs])}
    for k in depths:
        ratios[f"ndcg@{k}"] = Ratio([ndcg(names, wishes, k) for names, wishes in pairs])
        ratios[f"legacy_ndcg@{k}"] = Ratio([legacy_ndcg(names, wishes, k) for names, wishes in pairs])
        hits = [float(len(set(names[:k]) & set(wishes))) for names, wishes in pairs]
        ratios[f"recall@{k}"] = Ratio(hits, [float(len(set(wishes))) for _, wishes in pairs])
        complete = [float(hit == len(set(wishes))) for hit, (_, wishes) in zip(hits, pairs, strict=True)]
        ratios[f"complete@{k}"] = Ratio(complete)
    return ratios


def values(ratios: Mapping[str, Ratio]) -> dict[str, float]:
    """The plain figures, for a table."""
    summed = {name: ratio.arrays() for name, ratio in ratios.items()}
    return {name: float(parts.sum() / wholes.sum()) for name, (parts, wholes) in summed.items()}


def _gain(found: Sequence[str], wanted: Collection[str], k: int) -> float:
    return sum(1 / math.log2(place + 2) for place, name in enumerate(found[:k]) if name in wanted)
