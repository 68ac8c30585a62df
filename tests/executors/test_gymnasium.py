"""Gymnasium's own environments, played through tools."""

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from executors.catalog import Catalog
from executors.errors import ConfigError
from executors.executor import Executor
from executors.gymnasium import gymnasium_tools
from executors.named import load_tools
from executors.types import Scene, ToolCall

LAKE = {"is_slippery": False, "render_mode": "ansi"}
WAYS = ("left", "down", "right", "up")
HOME = ("down", "down", "right", "right", "down", "right")


def executor(*arguments: Any, **options: Any) -> Executor:
    """As a worker gets it: sent to another process."""
    return Executor(pickle.loads(pickle.dumps(Catalog(gymnasium_tools(*arguments, **options)))))


async def played(session, *actions: Any) -> list[str]:
    return [(await session.arun(ToolCall("step", {"action": action}))).content for action in actions]


async def test_a_frozen_lake_is_crossed_by_named_actions_and_pays_once():
    session = executor("FrozenLake-v1", actions=WAYS, options=LAKE).open(Scene("e", 3))
    assert await session.opening() == "[S]FFF\nFHFH\nFFFH\nHFFG"
    seen = await played(session, *HOME, "up")
    assert seen[0] == "(Down)\nSFFF\n[F]HFH\nFFFH\nHFFG\nreward 0"
    assert seen[5].endswith("HFF[G]\nreward 1\nover")
    assert seen[6] == "it is over: no further step can be taken"
    assert await session.reward() == 1.0
    await session.aclose()


async def test_each_episode_has_a_lake_of_its_own():
    made = executor("FrozenLake-v1", actions=WAYS, options={"is_slippery": False})
    one, two = made.open(Scene("a")), made.open(Scene("b"))
    await played(one, "down", "down")
    assert await played(two, "right") == ["1, reward 0"]
    assert await played(one, "right") == ["9, reward 0"]


async def test_all_attempts_at_a_task_are_dealt_the_same_hand():
    made = executor("Blackjack-v1", actions=("stick", "hit"))
    scenes = [
        Scene("a", 1, {"prompt": "Play."}),
        Scene("b", 2, {"prompt": "Play."}),
        Scene("c", 1, {"prompt": "Play!"}),
    ]
    one, again, other = [await made.open(scene).opening() for scene in scenes]
    assert one == again != other
    named = [await made.open(scene).opening() for scene in (Scene("a", 5), Scene("b", 9, {"seed": "5", "prompt": "?"}))]
    assert named[0] == named[1]


async def test_a_hand_of_blackjack_is_worth_what_the_environment_says():
    worth = []
    for seed in range(20):
        session = executor("Blackjack-v1", actions=("stick", "hit")).open(Scene("e", seed))
        await session.opening()
        (told,) = await played(session, "stick")
        worth.append(await session.reward())
        assert told.endswith(f"reward {worth[-1]:g}, over")
    assert {-1.0, 1.0} <= set(worth) <= {-1.0, 0.0, 1.0}


async def test_an_action_outside_the_space_is_a_bad_call_and_the_taxi_waits():
    session = executor("Taxi-v4").open(Scene("e", 1))
    before = await session.opening()
    assert (await session.arun(ToolCall("step", {"action": 6}))).status == "bad_call"
    assert (await session.arun(ToolCall("step", {"action": "north"}))).status == "bad_call"
    (after,) = await played(session, 4)  # there is nobody to pick up here
    assert after == f"{before}, reward -10"


class Echo(gymnasium.Env):
    """Repeats what it is told, whatever form that has."""

    def __init__(self, space: Any) -> None:
        self.action_space, self.observation_space = space, spaces.Text(100)

    def reset(self, *, seed=None, options=None):
        return "Speak.", {}

    def step(self, action):
        return f"{type(action).__name__} {action}", 0.5, False, False, {}


@pytest.mark.parametrize(
    ("space", "good", "bad", "heard"),
    [
        (spaces.Text(5, charset="abc"), "cab", "dog", "str cab"),
        (spaces.Discrete(3, start=2), 4, 5, "int 4"),
        (spaces.MultiBinary(2), [1, 0], [2, 0], "ndarray [1 0]"),
        (spaces.MultiDiscrete([3, 2]), [2, 1], [2, 2], "ndarray [2 1]"),
        (spaces.Box(-1, 1, (2,)), [0.5, -1], [0.5, 2], "ndarray [ 0.5 -1. ]"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Text(3))), [1, "ab"], [1], "tuple (1, 'ab')"),
        (spaces.Dict(x=spaces.Discrete(2)), {"x": 1}, {"y": 1}, "dict {'x': 1}"),
    ],
)
async def test_actions_of_every_form_arrive_as_the_environments_own(space, good, bad, heard):
    session = Executor(Catalog(gymnasium_tools(lambda: Echo(space)))).open(Scene("e"))
    assert await session.opening() == "Speak."
    assert await played(session, good) == [f"{heard}, reward 0.5"]
    refused = await session.arun(ToolCall("step", {"action": bad}))
    assert refused.status in ("bad_call", "tool_error"), refused


def test_what_cannot_be_written_as_json_is_refused_when_it_is_named():
    with pytest.raises(ConfigError, match="no JSON form"):
        gymnasium_tools(lambda: Echo(spaces.Box(0, 255, (8, 8, 3), np.uint8)))
    with pytest.raises(ConfigError, match="3 names for 4 actions"):
        gymnasium_tools("FrozenLake-v1", actions=("a", "b", "c"))
    with pytest.raises(ConfigError, match=r"no Gymnasium environment 'FrozenSea-v1'"):
        gymnasium_tools("FrozenSea-v1")
    with pytest.raises(ConfigError, match="no tool's name"):
        gymnasium_tools("FrozenLake-v1", name="a step")


def test_a_config_names_an_environment_with_its_settings():
    (tool,) = load_tools({"gymnasium": {"id": "FrozenLake-v1", "actions": list(WAYS), "options": LAKE}})
    assert tool.spec.parameters["properties"]["action"]["enum"] == list(WAYS)
    with pytest.raises(ConfigError, match="Its settings are id, actions"):
        load_tools({"gymnasium": {"environment": "FrozenLake-v1"}})
