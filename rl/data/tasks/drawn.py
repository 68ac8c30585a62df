"""Questions from seeded generators, in splits that never meet.

A question's own hash says where it belongs, so no evaluation question is ever trained on, whatever the seeds.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeVar

from executors.errors import DataError
from executors.types import ToolCall
from rollouts.types import Task

Split = Literal["train", "validation", "test"]
Key = TypeVar("Key", bound=str)


class Question(NamedTuple):
    """What a generator draws."""

    prompt: str
    answer: str
    gold: ToolCall


def split_of(question: str) -> Split:
    """Where a question belongs: 80% train, 7% validation, 13% test, by its hash alone."""
    place = int.from_bytes(hashlib.blake2b(question.encode(), digest_size=4).digest(), "big") % 100
    return "train" if place < 80 else "validation" if place < 87 else "test"


def shares(mix: dict[Key, float]) -> dict[Key, float]:
    """A config's shares, which have to be positive in all. Raises ValueError where they are not."""
    if min(mix.values(), default=0) < 0 or sum(mix.values()) <= 0:
        raise ValueError("the shares of the levels have to be positive")
    return mix


def draw_tasks(
    name: str,
    split: Split,
    count: int,
    *,
    seed: int,
    mix: Mapping[Key, float],
    draws: Mapping[str, Callable[[random.Random], Question]],
    distinct: bool = True,
) -> list[Task]:
    """Draw questions of one split.

    Args:
        name: of the generator: part of every id, and of the seed.
        split: train, validation or test.
        count: how many.
        seed: of the draw.
        mix: share of each level.
        draws: by level, what draws a question of it.
        distinct: no question twice; so a level that has few can run out.

    Raises:
        DataError: the split has too few distinct questions of a level.
    """
    generator = random.Random(f"{name}/{split}/{seed}")
    levels = generator.choices(list(mix), weights=list(mix.values()), k=count)
    streams = {level: _stream(name, level, split, draws[level], generator) for level in mix}
    known: set[str] = set()
    out: list[Task] = []
    for level in levels:
        for _ in range(10_000):
            task = next(streams[level])
            if not (distinct and task.id in known):
                break
        else:
            raise DataError(f"the {split} split has no further distinct {level} question; ask for fewer than {count}")
        known.add(task.id)
        out.append(task)
    return out


def _stream(
    name: str, level: str, split: Split, draw: Callable[[random.Random], Question], generator: random.Random
) -> Iterator[Task]:
    while True:
        question = draw(generator)
        if split_of(question.prompt) != split:
            continue
        yield Task(
            id=f"{name}-{hashlib.blake2b(question.prompt.encode(), digest_size=6).hexdigest()}",
            prompt=question.prompt,
            answer=question.answer,
            tools=(question.gold.tool,),
            gold=question.gold,
            labels={"level": level},
        )
