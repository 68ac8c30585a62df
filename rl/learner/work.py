"""What the learner is asked to do: one step of one stage at a time."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from executors.errors import DataError
from rl.data.examples import Example
from rl.learner.learner import Stage

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step: what to learn from, and what to do once it is learned."""

    step: int
    """Of the whole run, from 0."""
    stage: Stage
    stage_step: int
    """Of the stage, from 0."""
    examples: tuple[Example, ...]
    version: int | None = None
    """Of the weights that learn, in the count of those that play; None where nobody plays."""
    publish: int | None = None
    """Publish the weights after this step, as this version."""
    save: bool = False
    """Write a checkpoint after this step."""


def epochs(examples: Sequence[Item], batch_size: int, steps: int, seed: int) -> Iterator[tuple[Item, ...]]:
    """Batches for a number of steps: every example once before any comes again, in an order that the seed says.

    No example stands twice in a batch, unless there are fewer than a batch takes.

    Raises:
        DataError: there is none.
    """
    if not examples:
        raise DataError("nothing to learn from: no task is left, or all candidates are longer than the model reads")
    generator = random.Random(f"epochs/{seed}")
    order: list[int] = []
    for _ in range(steps):
        while len(order) < batch_size:
            again = list(range(len(examples)))
            generator.shuffle(again)
            left = set(order)
            order += sorted(again, key=left.__contains__)  # what the batch has already comes last; else as shuffled
        taken, order = order[:batch_size], order[batch_size:]
        yield tuple(examples[index] for index in taken)
