"""What a policy is told of a tool, what it asks of it, and what comes back."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "bad_call", "tool_error", "timeout", "blocked", "unavailable"]
"""How a call ended.

- ``ok``: the tool answered.
- ``bad_call``: no such tool, arguments that break its schema, or a call that could not be parsed.
- ``tool_error``: the tool ran and refused or failed.
- ``timeout``: the tool did not answer in time.
- ``blocked``: the sandbox stopped it.
- ``unavailable``: the infrastructure failed; never scored as the policy's fault.
"""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a policy is told of one tool."""

    name: str
    """Unique within a catalog."""
    description: str
    """One or a few lines: what the tool is for."""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    """A JSON Schema (2020-12) of type ``object``."""
    returns: Mapping[str, Any] | None = None
    """A JSON Schema of what the tool answers, where its author says so. Policies are not told."""

    def as_openai(self) -> dict[str, Any]:
        """The tool as an entry of ``tools`` in an OpenAI chat request."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A well-formed request to run one tool; whether the tool exists is the executor's to say."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MalformedCall:
    """Text that set out to be a call and is not one. Kept apart from plain text and from failed calls."""

    text: str
    """What the policy wrote."""
    error: str
    """Why it is not a call: what the policy reads as its observation."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What came back from one call, failures included."""

    content: str
    status: Status = "ok"
    seconds: float = 0.0
    """Wall time that the call took."""
    attempts: int = 1
    """How often the tool was tried; more than once after failures that pass."""
    recorded: bool = False
    """Whether it came from a cache or a recording rather than from the tool."""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an episode's calls happen: what a stateful tool is opened with."""

    episode: str = ""
    """Unique among all that run at once; the same when an episode is replayed."""
    seed: int = 0
    row: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the task, such as its prompt: handed to an environment's ``reset`` by name."""

    @property
    def task_seed(self) -> int:
        """The same in all attempts at a task, so that they face the same world: the row's ``seed``, or one that follows
        from the row; that of the scene where nothing is known of the task."""
        if not self.row:
            return self.seed
        if "seed" in self.row:
            return int(self.row["seed"])
        return zlib.crc32(json.dumps(dict(self.row), sort_keys=True, default=str).encode())
