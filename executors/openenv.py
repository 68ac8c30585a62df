"""Environments behind an OpenEnv server, as tools: over its WebSocket protocol, without its library.

A server whose environment has tools of its own (MCP) offers those; any other is acted in by one tool, ``step``, whose
arguments are its action's fields. Each episode has a connection, and so an environment, of its own: the server has to
allow as many sessions as there are episodes at once (``max_concurrent_envs``).
"""

import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from executors.errors import BadCallError, ConfigError, ToolError, TransientError
from executors.names import Identity, Names
from executors.tool import Limits, Tool
from executors.types import Scene, ToolSpec

_MAX_MESSAGE = 8 * 2**20
"""Bytes of one message of a server's."""
_OF_THE_CALL = {"VALIDATION_ERROR": BadCallError, "EXECUTION_ERROR": ToolError}
"""The errors of the protocol that a policy's action brings about; all others are the server's."""
_TOOL_ERRORS = {"invalid_args": BadCallError, "tool_not_found": BadCallError, "transport_error": TransientError}


def openenv_tools(url: str, *, name: str = "step", timeout: float = 30.0, limits: Limits = Limits()) -> list[Tool]:
    """The tools of an environment behind an OpenEnv server.

    It is reset before the first call, with the task's seed and what its row has; what it then shows is added to the
    prompt. The sum of the rewards is what the episode is worth: ``Episode.environment_reward``.

    Args:
        url: of the server, such as ``http://127.0.0.1:8000``.
        name: of the one tool where the environment has none of its own.
        timeout: seconds for each message.
        limits: of each tool.

    Raises:
        ConfigError: the ``websockets`` package is missing, no such server answers there, or its actions have no schema.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is no address of an OpenEnv server; such as http://127.0.0.1:8000")
    maker = OpenEnvs(url.rstrip("/"), timeout)
    try:
        with contextlib.closing(Connected(maker.url, timeout)) as connected:
            served = connected.tools()
        if served is None:
            spec = ToolSpec(name, "Act in the environment.", _action_schema(url, timeout))
            return [Tool(spec, _step, limits=limits, state=maker)]
    except TransientError as error:
        raise ConfigError(f"no OpenEnv environment answers at {url}: {error}") from error
    names = Names(Identity(tool["name"], "", "") for tool in served)
    return [
        Tool(
            ToolSpec(names[Identity(tool["name"], "", "")], tool.get("description") or "", _input(tool)),
            _Named(tool["name"]),
            limits=limits,
            state=maker,
        )
        for tool in served
    ]


@dataclass(frozen=True, slots=True, eq=False)
class OpenEnvs:
    """Opens a connection to the server for each episode, and resets the environment there."""

    url: str
    timeout: float
    eager: bool = True
    judges: bool = True

    def open(self, scene: Scene) -> "Connected":
        """A connection whose environment is reset.

        Raises:
            TransientError: the server cannot be reached, has no room, or cannot reset.
        """
        connected = Connected(self.url, self.timeout)
        try:
            asked = {"seed": scene.task_seed % 2**31, "episode_id": scene.episode[:255], **scene.row}
            connected.opening = _text(connected.observed("reset", asked).get("observation"))
        except ToolError as error:
            connected.close()
            raise TransientError(f"the environment at {self.url} cannot be reset: {error}") from error
        return connected


class Connected:
    """One episode's connection, and with it its environment."""

    def __init__(self, url: str, timeout: float) -> None:
        """
        Raises:
            ConfigError: the ``websockets`` package is missing.
            TransientError: nobody answers there.
        """
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise ConfigError(
                "OpenEnv servers are spoken to by WebSocket: pip install 'apprentice[openenv]'"
            ) from error
        self.opening = ""
        self.over = False
        self.rewards: list[float] = []
        self._numbers = itertools.count(1)
        self._timeout = timeout
        self._broken = (WebSocketException, OSError)
        address = f"ws{url.removeprefix('http')}/ws"
        try:
            self._socket = connect(address, open_timeout=timeout, max_size=_MAX_MESSAGE)
        except self._broken as error:
            raise TransientError(f"{url} cannot be reached ({error})") from error

    def tools(self) -> list[Mapping[str, Any]] | None:
        """The tools that the environment has of its own; None where it is acted in otherwise."""
        asked = {"jsonrpc": "2.0", "method": "tools/list", "params": {}, "id": next(self._numbers)}
        found = self._ask("mcp", asked).get("result")
        listed = found.get("tools") if isinstance(found, Mapping) else None
        return listed or None

    def act(self, action: Mapping[str, Any]) -> Mapping[str, Any]:
        """Act in the environment; gives what it then shows.

        Raises:
            ToolError: the action is none, it failed, or it is over already.
        """
        if self.over:
            raise ToolError("it is over: no further step can be taken")
        found = self.observed("step", action)
        reward = found.get("reward")
        self.over = bool(found.get("done"))
        self.rewards += [] if reward is None else [float(reward)]
        return found

    def observed(self, kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a reset or a step gives."""
        return self._ask(kind, data)

    def get_reward(self) -> float | None:
        """The sum of the rewards; None where there was none."""
        return sum(self.rewards) if self.rewards else None

    def close(self) -> None:
        """Say that the episode is over, and hang up."""
        with contextlib.suppress(*self._broken):
            self._socket.send(json.dumps({"type": "close"}))
        self._socket.close()

    def _ask(self, kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            with contextlib.suppress(*self._broken):  # a server that hangs up has said why
                self._socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(self._socket.recv(timeout=self._timeout))
        except (*self._broken, ValueError) as error:  # a TimeoutError is an OSError
            raise TransientError(f"the connection to the environment broke: {error}") from error
        told = answer.get("data") or {}
        if answer.get("type") == "error":
            raise _OF_THE_CALL.get(told.get("code", ""), TransientError)(_worded(told))
        return told


@dataclass(frozen=True, slots=True)
class _Named:
    """Calls one of the environment's own tools, as a step, so that the step is rewarded."""

    name: str

    def __call__(self, connected: Connected, /, **arguments: Any) -> str:
        found = connected.act({"type": "call_tool", "tool_name": self.name, "arguments": arguments})
        shown = found.get("observation") or {}
        if wrong := shown.get("error"):
            raise _TOOL_ERRORS.get(wrong.get("error_type", ""), ToolError)(wrong.get("message") or "the tool failed")
        result = shown.get("result")
        if isinstance(result, Mapping) and "data" in result:  # as FastMCP wraps it
            result = result["data"]
        return _with_reward(_text(result), found)


def _step(connected: Connected, /, **arguments: Any) -> str:
    found = connected.act(arguments)
    return _with_reward(_text(found.get("observation")), found)


def _with_reward(text: str, found: Mapping[str, Any]) -> str:
    reward = found.get("reward")
    told = [text, "" if reward is None else f"reward {float(reward):g}", "over" if found.get("done") else ""]
    return ", ".join(filter(None, told))


def _text(shown: Any) -> str:
    """An observation as a policy reads it: a text as it is, a field alone by its value, else JSON."""
    if isinstance(shown, Mapping):
        shown = {key: value for key, value in shown.items() if key != "metadata" and value is not None}
        if len(shown) == 1:
            return _text(next(iter(shown.values())))
    if shown is None or shown == {}:
        return ""
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def _worded(told: Mapping[str, Any]) -> str:
    """What the server says is wrong, with the fields of an action that is none."""
    faults = [f"{'/'.join(map(str, one.get('loc', ())))}: {one.get('msg', '')}" for one in told.get("errors") or ()]
    return f"{told.get('message', 'it failed')}{': ' if faults else ''}{'; '.join(faults)}"


def _input(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = tool.get("input_schema") or tool.get("inputSchema")
    return schema if isinstance(schema, Mapping) and schema else {"type": "object", "properties": {}}


def _action_schema(url: str, timeout: float) -> dict[str, Any]:
    """The schema of the environment's actions, as its server tells it, without what is not a policy's to write.

    Raises:
        ConfigError: it tells none.
    """
    import httpx

    try:
        told = httpx.get(f"{url.rstrip('/')}/schema", timeout=timeout).raise_for_status().json()["action"]
        properties = {key: value for key, value in told["properties"].items() if key != "metadata"}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{url}/schema does not tell the environment's actions: {error!r}") from error
    return {**told, "type": "object", "properties": properties}
