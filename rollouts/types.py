"""What is attempted, and everything that an attempt leaves behind. All values are complete and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from executors.types import MalformedCall, Observation, ToolCall

StopReason = Literal["answer", "turn_limit", "token_limit", "failed"]
"""Why an episode ended.

- ``answer``: the policy gave its answer.
- ``turn_limit``: it was still calling tools at the limit; so ends every episode of a single-call benchmark.
- ``token_limit``: a reply was cut at its length limit.
- ``failed``: the infrastructure failed (an endpoint, a worker); counted, never ranked or learned from.
"""

Force = Literal["call", "direct"]
"""How the first reply is made to begin: with a call, or with an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to attempt."""

    id: str
    prompt: str
    answer: str | None = None
    """The expected answer; None where the expected call is all there is to compare with."""
    aliases: tuple[str, ...] = ()
    """Other answers that are as good."""
    tools: tuple[str, ...] = ()
    """Names of the tools that may be called."""
    gold: ToolCall | None = None
    """A call that leads to the answer, where one is known."""
    needs_tool: bool | None = None
    """Whether the answer takes a tool, where that is known; else it is judged by the policy's own direct answer."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What to group results by, such as ``{"level": "hard"}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How replies are drawn."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is no limit."""
    max_tokens: int = 64
    """Of one reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One reply of a policy."""

    text: str
    finish: Literal["stop", "end", "length"] = "end"
    """``stop``: a stop string; ``end``: the end token; ``length``: cut."""
    token_ids: tuple[int, ...] = ()
    """As sampled, the end token included; empty where the policy gives only text."""
    mask: tuple[bool, ...] = ()
    """False for tokens that were forced rather than sampled."""
    logprobs: tuple[float, ...] = ()
    """Of each token, under the policy and version that wrote it, at temperature 1."""
    tokenizer: str = ""
    """Fingerprint of the tokenizer that the ids belong to."""
    prompt_tokens: int = 0
    """Tokens of all that stood before it; 0 where the policy gives only text."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply and its outcome: a call with its observation, or neither."""

    completion: Completion
    call: ToolCall | MalformedCall | None = None
    observation: Observation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One whole attempt at one task by one policy."""

    task_id: str
    source: str
    """The source's name in the config."""
    policy: str
    """The model behind it."""
    version: int
    """Of the weights that wrote it."""
    turns: tuple[Turn, ...]
    answer: str | None
    stop: StopReason
    force: Force | None = None
    temperature: float = 0.0
    seed: int = 0
    seconds: float = 0.0
    error: str = ""
    """Why it failed, where ``stop`` is ``failed``."""

    @property
    def calls(self) -> tuple[ToolCall | MalformedCall, ...]:
        """Every call in order, malformed ones included."""
        return tuple(turn.call for turn in self.turns if turn.call is not None)

    @property
    def called(self) -> bool:
        """Whether the policy set out to call a tool."""
        return any(turn.call is not None for turn in self.turns)

    @property
    def malformed(self) -> bool:
        return any(isinstance(turn.call, MalformedCall) for turn in self.turns)

    @property
    def observations(self) -> tuple[Observation, ...]:
        return tuple(turn.observation for turn in self.turns if turn.observation is not None)

    @property
    def text(self) -> str:
        """What the policy wrote, replies joined."""
        return "".join(turn.completion.text for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Group:
    """Every attempt at one task, from every source."""

    task: Task
    episodes: tuple[Episode, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Published weights."""

    version: int
    weights: Any
    """A dict of numpy arrays by parameter name, or a reference to one."""
