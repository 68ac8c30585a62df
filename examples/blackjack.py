"""A Gymnasium environment: hands of blackjack, in which ``step`` is the tool and the chips are the reward.

pip install 'apprentice[gymnasium]'
apprentice check examples/blackjack.py
apprentice train examples/blackjack.py
"""

import random
from collections.abc import Iterator

from executors.gymnasium import gymnasium_tools
from executors.types import ToolCall
from rollouts.types import Episode, Task


def shown(observation: tuple[int, int, int]) -> str:
    """A hand in words."""
    held, dealer, ace = observation
    return f"You hold {held}{' with an ace' if ace else ''}, the dealer shows {dealer}"


blackjack = gymnasium_tools(
    "Blackjack-v1", actions=("stick", "hit"), show=shown, description="Take another card (hit), or no more (stick)."
)
tools = [blackjack]


def tasks(seed: int) -> Iterator[Task]:
    """A hand each, settled by its seed. Imitated is a player who hits at random, and then forgets to go on."""
    draw = random.Random(seed)
    for number in range(600):
        action = "hit" if draw.random() < 0.3 else "stick"
        yield Task(
            id=f"hand-{number}",
            prompt=f"Play hand {number} of blackjack.",
            answer="done",
            tools=("step",),
            gold=ToolCall("step", {"action": action}),
            labels={"seed": str(number)},
        )


def reward(task: Task, episode: Episode) -> dict[str, float]:
    """What the hand paid; one that was not played to its end is lost."""
    ended = any(observation.content.endswith("over") for observation in episode.observations)
    return {"chips": (episode.environment_reward or 0.0) if ended else -1.0}


config = {
    "model": {"kind": "tiny", "vocab_size": 300},
    "cloning": {"steps": 300},
    "sources": [
        {"name": "forced-call", "policy": "live", "force": "call", "temperature": 1.2, "count": 2},
        {"name": "own", "policy": "live", "temperature": 1.2, "count": 4},
    ],
    "rewards": {"match": "exact"},
    "evaluation": {"kind": "environment"},
}
