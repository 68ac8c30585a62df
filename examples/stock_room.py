"""A stateful environment: every attempt has a stock room of its own, and the room says at the end what it is worth.

The class has TRL's form, so that ``GRPOTrainer(environment_factory=StockRoom)`` takes it as it is.

apprentice check examples/stock_room.py
apprentice train examples/stock_room.py
"""

import random
from collections.abc import Iterator

from executors.errors import ToolError
from executors.types import ToolCall
from rollouts.types import Episode, Task


class StockRoom:
    """Boxes on a shelf, some of which are wanted."""

    def reset(self, stock: str, wanted: str) -> str:
        """Fill the shelf; what is said here ends the prompt. The parameters are the task's labels of these names."""
        self.left, self.wanted, self.taken = int(stock), int(wanted), 0
        return f"{stock} boxes are on the shelf."

    def take(self, boxes: int) -> str:
        """Take boxes from the shelf.

        Args:
            boxes: how many.
        """
        if not 0 < boxes <= self.left:
            raise ToolError(f"{boxes} cannot be taken, there are {self.left}")
        self.left -= boxes
        self.taken += boxes
        return str(self.left)

    def get_reward(self) -> float:
        """Whether just as many were taken as were wanted."""
        return float(self.taken == self.wanted)


tools = [StockRoom]


def tasks(seed: int) -> Iterator[Task]:
    """Take so many boxes, and say what is left; counting alone gives the right answer and leaves the boxes there."""
    draw = random.Random(seed)
    for number in range(600):
        stock = draw.randint(5, 30)
        wanted = draw.randint(1, min(stock, 9))
        yield Task(
            id=f"take-{number}",
            prompt=f"Order {number}: take {wanted} boxes and say how many are left.",
            answer=str(stock - wanted),
            tools=("take",),
            gold=ToolCall("take", {"boxes": wanted}),
            labels={"stock": str(stock), "wanted": str(wanted)},
        )


def reward(task: Task, episode: Episode) -> dict[str, float]:
    """Half for what the room says, half for the answer."""
    right = (episode.answer or "").strip() == task.answer
    return {"taken": 0.5 * (episode.environment_reward or 0.0), "answer": 0.5 * right}


config = {
    "model": {"kind": "tiny", "vocab_size": 400},
    "cloning": {"steps": 500},
    "evaluation": {"kind": "environment"},  # the best checkpoint is the one that the rooms are most content with
}
