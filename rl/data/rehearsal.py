"""What continual learning reads again: a share of every earlier batch, and general data, beside what is new."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def rehearsed(
    new: Sequence[T], past: Sequence[Sequence[T]], *, ratio: float = 0.1, general: Sequence[T] = (), seed: int = 0
) -> list[T]:
    """The examples of one round: all that is new, a share of each earlier batch, and all general ones; shuffled.

    Args:
        new: of this round.
        past: of each earlier round.
        ratio: share of each; at least one example of a batch that has any, and none at 0.
        general: that keep what the policy could do before.
        seed: settles which; every round and batch draws anew.
    """
    chosen = [*new, *general]
    for number, batch in enumerate(past):
        draw = random.Random(f"rehearsal/{seed}/{len(past)}/{number}")
        count = min(len(batch), max(1, round(ratio * len(batch)))) if ratio > 0 and batch else 0
        chosen += draw.sample(list(batch), count)
    random.Random(f"rehearsal/{seed}/{len(past)}/order").shuffle(chosen)
    return chosen


def forgetting(matrix: Sequence[Sequence[float]]) -> dict[str, float]:
    """What rounds did to what was learned before.

    Args:
        matrix: by round, the figure on each batch up to and including the round's own.

    Returns:
        ``final``: the mean over batches after the last round. ``learned``: the mean of each batch right after its own
        round. ``forgotten``: the mean fall of earlier batches from their best figure to their last.
    """
    last = matrix[-1]
    learned = [row[number] for number, row in enumerate(matrix)]
    falls = [max(row[number] for row in matrix[number:]) - last[number] for number in range(len(last) - 1)]
    return {
        "final": sum(last) / len(last),
        "learned": sum(learned) / len(learned),
        "forgotten": sum(falls) / len(falls) if falls else 0.0,
    }


def lost(before: Mapping[str, float], after: Mapping[str, float], *, tolerance: float = 0.1) -> dict[str, float]:
    """The tools that a policy got worse at by more than is borne, and by how much: it should not be published.

    Args:
        before: by tool, the figure of the policy that is in use.
        after: of the one that would follow it.
        tolerance: the fall that is borne.
    """
    falls = {tool: round(figure - after.get(tool, 0.0), 6) for tool, figure in before.items()}  # .9 - .7 is above .2
    return {tool: fall for tool, fall in falls.items() if fall > tolerance}
