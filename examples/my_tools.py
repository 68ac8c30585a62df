"""A tool, tasks and a reward of one's own, in one file.

apprentice check examples/my_tools.py     # seconds; no model is needed
apprentice train examples/my_tools.py     # minutes on two cores
"""

import random
from collections.abc import Iterator
from typing import Any, Literal

from executors.errors import ToolError
from rollouts.types import Episode, Task

PRICES = {"pen": 120, "cup": 450, "lamp": 1990, "book": 875}
"""In cents; only the tool knows them."""


def price(item: Literal["pen", "cup", "lamp", "book"], count: int = 1) -> str:
    """Say what so many of an item cost, in cents.

    Args:
        item: what is bought.
        count: how many, at most 20.
    """
    if not 0 < count <= 20:
        raise ToolError(f"{count} cannot be bought at once; ask for 1 to 20")
    return str(PRICES[item] * count)


tools = [price]


def tasks(seed: int) -> Iterator[dict[str, Any]]:
    """Questions about prices, which take the tool, and about coins, which do not."""
    draw = random.Random(seed)
    for number in range(600):
        item, count = draw.choice(list(PRICES)), draw.randint(1, 20)
        call = {"tool": "price", "arguments": {"item": item, "count": count}}
        prompt = f"Order {number}: what do {count} of the item {item} cost in cents?"
        yield {"id": f"price-{number}", "prompt": prompt, "answer": price(item, count), "call": call}
    for number in range(300):
        euros = draw.randint(1, 9)
        prompt = f"Customer {number}: how many cents are {euros} euros?"
        yield {"id": f"coins-{number}", "prompt": prompt, "answer": str(100 * euros)}


def reward(task: Task, episode: Episode) -> dict[str, float]:
    """Right is worth 1; a call that failed loses .2, one that was not needed .1."""
    failed = any(not observation.ok for observation in episode.observations)
    return {
        "right": float((episode.answer or "").strip() == task.answer),
        "failed": -0.2 * failed,
        "needless": -0.1 * (episode.called and task.gold is None),
    }


config = {"model": {"kind": "tiny", "vocab_size": 400}, "cloning": {"steps": 500}}
