"""Your own tool, reward and tasks, in one file. Change all of it, then:

apprentice check my_tools.py     # a few seconds: the tool is tried, the tasks are read, the rewards are compared
apprentice train my_tools.py     # minutes on two cores: from random weights to a policy that calls the tool
"""

import random
from collections.abc import Iterator
from typing import Any

from executors.errors import ToolError
from rollouts.types import Episode, Task

# 1. The tool. Hints are its schema and the docstring is what the policy reads. ToolError tells the policy why a call
#    was refused; anything else that is raised is a failure of the tool.


def to_fahrenheit(celsius: float) -> str:
    """Convert degrees Celsius to Fahrenheit.

    Args:
        celsius: the temperature, such as 21.5.
    """
    if celsius < -273.15:
        raise ToolError("there is no temperature below -273.15 degrees Celsius")
    return f"{celsius * 9 / 5 + 32:.1f}"


tools = [to_fahrenheit]  # also "calculator", {"wiki_search": {"path": "passages.jsonl"}}, a class with reset(), ...

# 2. The tasks. ``call`` is one that leads to the answer; the policy learns from it how calls are written. Some of these
#    need the tool, and some it would only cost time: which is which, the policy has to find out.


def tasks(seed: int) -> Iterator[dict[str, Any]]:
    """Questions with their answers; every row is checked before anything starts."""
    draw = random.Random(seed)
    asked = ("What is {} degrees Celsius in Fahrenheit?", "It is {} degrees Celsius in Lima. And in Fahrenheit?")
    for number in range(900):
        celsius = draw.randrange(-300, 450) / 10
        question = draw.choice(asked).format(celsius)
        call = {"tool": "to_fahrenheit", "arguments": {"celsius": celsius}}
        yield {"id": f"convert-{number}", "prompt": question, "answer": to_fahrenheit(celsius), "call": call}
    for number, name in enumerate(["Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Joe"] * 9):
        what, answer = draw.choice([("freeze", "0"), ("boil", "100")])
        question = f"{name} asks for the {number}th time: at how many degrees Celsius does water {what}?"
        yield {"id": f"{what}-{number}", "prompt": question, "answer": answer}


# 3. The reward, of a finished attempt: a number, or numbers by part, which are summed. Within a task only their order
#    and distance count. ``episode`` has the turns, the calls with their observations, and the answer.


def reward(task: Task, episode: Episode) -> dict[str, float]:
    """Right is worth 1; a malformed call loses .2, a call that was not needed .1."""
    right = episode.answer is not None and episode.answer.strip() == task.answer
    needless = episode.called and task.gold is None
    return {"right": float(right), "malformed": -0.2 * episode.malformed, "needless": -0.1 * needless}


# 4. The rest of the config: any key of any YAML config. What is left out is what ``apprentice check`` prints.

config = {
    "model": {"kind": "tiny", "vocab_size": 400},
    "cloning": {"steps": 500},
    "improvement": {"rounds": 8, "tasks_per_round": 64},
}
