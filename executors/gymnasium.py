"""Environments of Gymnasium as tools: a policy acts by calling ``step``, in an environment of its episode's own.

Any ``gymnasium.Env`` whose actions can be written as JSON will do: discrete ones, texts, numbers within bounds, and
tuples and dictionaries of those. ``pip install 'apprentice[gymnasium]'``.
"""

import inspect
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from executors.errors import ConfigError, ToolError
from executors.names import is_name
from executors.tool import Limits, Tool
from executors.types import Scene, ToolSpec

if TYPE_CHECKING:
    import gymnasium

Shown: TypeAlias = Callable[[Any], str]
"""What a policy reads of an observation."""

_SEEDS = 2**31
_MARKED = re.compile(r"\x1b\[[\d;]*m(.*?)\x1b\[0m", re.DOTALL)
"""What a terminal would show in colour: put into brackets."""


def gymnasium_tools(
    environment: str | Callable[[], Any],
    *,
    actions: Sequence[str] = (),
    description: str = "",
    show: Shown | None = None,
    options: Mapping[str, Any] | None = None,
    name: str = "step",
    limits: Limits = Limits(),
) -> list[Tool]:
    """The one tool by which a policy acts in a Gymnasium environment; each episode has an environment of its own.

    It is reset before the first call, in all attempts at a task with the same seed (``Scene.task_seed``). What it then
    shows is added to the prompt; each step gives what it shows next, the reward and whether it is over. The sum of the
    rewards is what the episode is worth: ``Episode.environment_reward``.

    Args:
        environment: the id of a registered one, such as ``"FrozenLake-v1"``, or what makes one.
        actions: names of discrete actions, in their order; their numbers by default.
        description: of the tool; by default the first sentence that the environment says of itself.
        show: writes an observation; by default its text, its picture in letters where the environment is made with
            ``render_mode="ansi"``, or its numbers.
        options: for ``gymnasium.make`` where the environment is named by its id.
        name: of the tool.
        limits: of the tool.

    Raises:
        ConfigError: Gymnasium is not installed, there is no such environment, or its actions have no JSON form.
    """
    if not is_name(name):
        raise ConfigError(f"{name!r} is no tool's name; use letters, digits, _ and -, at most 64")
    factory = _factory(environment, dict(options or {}))
    tried = factory()
    try:
        schema = _schema(tried.action_space, tuple(actions))
        told = description or _first_sentence(tried.unwrapped)
    finally:
        tried.close()
    maker = Gymnasiums(factory, tuple(actions), show)
    parameters = {
        "type": "object",
        "properties": {"action": schema},
        "required": ["action"],
        "additionalProperties": False,
    }
    return [Tool(ToolSpec(name, told, parameters), _step, limits=limits, state=maker)]


@dataclass(frozen=True, slots=True, eq=False)
class Gymnasiums:
    """Makes and resets an environment for each episode."""

    factory: Callable[[], Any]
    actions: tuple[str, ...] = ()
    show: Shown | None = None
    eager: bool = True
    judges: bool = True

    def open(self, scene: Scene) -> "Playing":
        """An environment, reset with the task's seed."""
        environment = self.factory()
        try:
            observation, _ = environment.reset(seed=scene.task_seed % _SEEDS)
            playing = Playing(environment, self.actions, self.show)
            playing.opening = playing.shown(observation)
        except BaseException:
            environment.close()
            raise
        return playing


@dataclass(slots=True)
class Playing:
    """One episode's environment."""

    environment: Any
    actions: tuple[str, ...]
    show: Shown | None
    opening: str = ""
    over: bool = False
    rewards: list[float] = field(default_factory=list)

    def step(self, written: Any) -> str:
        """Act, and tell what came of it.

        Raises:
            ToolError: the episode is over.
        """
        if self.over:
            raise ToolError("it is over: no further step can be taken")
        action = _action(self.environment.action_space, written, self.actions)
        observation, reward, terminated, truncated, _ = self.environment.step(action)
        self.over = bool(terminated or truncated)
        self.rewards.append(float(reward))
        shown = self.shown(observation)
        told = [shown, f"reward {float(reward):g}", *(["over"] if self.over else [])]
        return ("\n" if "\n" in shown else ", ").join(told)

    def shown(self, observation: Any) -> str:
        """What the policy reads of an observation."""
        if self.show is not None:
            return self.show(observation)
        if getattr(self.environment, "render_mode", None) == "ansi":
            return _MARKED.sub(r"[\1]", str(self.environment.render())).strip()
        plain = _plain(observation)
        return plain if isinstance(plain, str) else str(plain)

    def get_reward(self) -> float:
        """The sum of the rewards so far."""
        return sum(self.rewards)

    def close(self) -> None:
        """Let the environment free what it holds."""
        self.environment.close()


def _step(playing: Playing, action: Any) -> str:
    return playing.step(action)


@dataclass(frozen=True, slots=True)
class _Registered:
    """Makes the environment of an id, in whatever process."""

    id: str
    options: Mapping[str, Any]

    def __call__(self) -> Any:
        gymnasium = _library()
        try:
            return gymnasium.make(self.id, **self.options)
        except (gymnasium.error.Error, TypeError) as error:
            raise ConfigError(f"there is no Gymnasium environment {self.id!r} to be made: {error}") from error


def _factory(environment: str | Callable[[], Any], options: dict[str, Any]) -> Callable[[], Any]:
    if isinstance(environment, str):
        return _Registered(environment, options)
    if options:
        raise ConfigError("options are for environments named by their id; give a function that makes yours with them")
    if not callable(environment) or not hasattr(_library(), "Env"):
        raise ConfigError(f"{environment!r} makes no environment; give an id, or a function without parameters")
    return environment


def _library() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise ConfigError("Gymnasium is not installed: pip install 'apprentice[gymnasium]'") from error
    return gymnasium


def _schema(space: "gymnasium.Space[Any]", names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The JSON Schema of a space's values."""
    spaces = _library().spaces
    match space:
        case spaces.Discrete():
            return _discrete(space, names)
        case _ if names:
            raise ConfigError(f"actions have names where the space is Discrete, and this one is {space}")
        case spaces.Text():
            letters = {} if len(space.character_set) > 62 else {"pattern": f"^[{_class_of(space.character_set)}]*$"}
            return {"type": "string", "minLength": space.min_length, "maxLength": space.max_length, **letters}
        case spaces.MultiDiscrete() | spaces.MultiBinary() | spaces.Box() if len(space.shape) == 1:
            return {"type": "array", "minItems": space.shape[0], "maxItems": space.shape[0], "items": _items(space)}
        case spaces.Tuple():
            parts = [_schema(part) for part in space.spaces]
            return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
        case spaces.Dict():
            keys = list(space.spaces)
            return {"type": "object", "properties": {key: _schema(space[key]) for key in keys}, "required": keys}
    raise ConfigError(
        f"actions of {space} have no JSON form here; wrap the environment so that they are discrete or text"
    )


def _discrete(space: Any, names: tuple[str, ...]) -> dict[str, Any]:
    count, start = int(space.n), int(space.start)
    if names and len(names) != count:
        raise ConfigError(f"{len(names)} names for {count} actions: {', '.join(names)}")
    if names:
        return {"type": "string", "enum": list(names)}
    return {"type": "integer", "minimum": start, "maximum": start + count - 1}


def _items(space: Any) -> dict[str, Any]:
    """What holds of every part of a flat array."""
    spaces = _library().spaces
    if isinstance(space, spaces.MultiBinary):
        return {"type": "integer", "enum": [0, 1]}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "integer", "minimum": int(space.start.min()), "maximum": int((space.start + space.nvec).max())}
    kind = "integer" if space.dtype.kind in "iu" else "number"
    bounds = {"minimum": float(space.low.min()), "maximum": float(space.high.max())}
    return {"type": kind, **{key: value for key, value in bounds.items() if abs(value) < 1e30}}


def _class_of(letters: Sequence[str]) -> str:
    return "".join(f"\\{letter}" if letter in r"\]^-" else letter for letter in sorted(letters))


def _action(space: Any, written: Any, names: tuple[str, ...]) -> Any:
    """What a call's argument is to the environment.

    Raises:
        ToolError: it has the form of the space and is not in it.
    """
    spaces = _library().spaces
    if isinstance(space, spaces.Discrete):
        action: Any = int(space.start) + names.index(written) if names else int(written)
    elif isinstance(space, spaces.Tuple):
        action = tuple(_action(part, value, ()) for part, value in zip(space.spaces, written, strict=True))
    elif isinstance(space, spaces.Dict):
        action = {key: _action(space[key], written[key], ()) for key in space.spaces}
    elif isinstance(space, spaces.Text):
        action = written
    else:
        import numpy

        action = numpy.asarray(written, dtype=space.dtype)
    if not space.contains(action):
        raise ToolError(f"{written!r} is no action here; they are {space}")
    return action


def _plain(value: Any) -> Any:
    """An observation without arrays."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


def _first_sentence(environment: Any) -> str:
    """What an environment's class says that it is."""
    paragraphs = (inspect.getdoc(type(environment)) or "").split("\n\n")
    told = " ".join(next((one for one in paragraphs if not one.startswith("#")), "").split())
    return f"Act: {told.partition('. ')[0].rstrip('.')}." if told else "Act in the environment."
