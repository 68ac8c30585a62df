"""What is attempted, and everything that an attempt leaves behind. All values are complete and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from executors.types import MalformedCall, Observation, ToolCall

StopReason = Literal["answer", "turn_limit", "token_limit", "prompt_limit", "malformed", "cut", "failed"]
"""Why an episode ended.

- ``answer``: the policy gave its answer.
- ``turn_limit``: it was still calling tools at the limit; so ends every episode of a single-call benchmark.
- ``token_limit``: a reply was cut at its length limit.
- ``prompt_limit``: what the policy was to read next is longer than what it can. Its context is part of the policy, so
  the attempt counts as one without an answer; where no reply was made at all, there is nothing to learn from.
- ``malformed``: the format ends an episode at such a call, as a published agent does.
- ``cut``: it took far longer than the others, and the round went on without it; counted, never ranked.
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
    scores: Mapping[str, float] = field(default_factory=dict)
    """Rewards that were given to recorded attempts, by the policy that made them."""


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
    min_p: float = 0.0
    """Leaves out tokens that are less likely than this share of the likeliest one."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """By token id, what is added to its logit before a token is drawn, or the likeliest one taken."""
    top_logprobs: int = 0
    """How many of the likeliest tokens are told, with their log-probabilities, at each position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One reply of a policy."""

    __pydantic_config__ = {"ser_json_inf_nan": "strings"}  # a token of no probability at all is logged as one

    text: str
    finish: Literal["stop", "end", "length"] = "end"
    """``stop``: a stop string; ``end``: the end token; ``length``: cut."""
    token_ids: tuple[int, ...] = ()
    """As sampled, the end token included; empty where the policy gives only text."""
    mask: tuple[bool, ...] = ()
    """False for tokens that were forced rather than sampled."""
    logprobs: tuple[float, ...] = ()
    """Of each token, under the policy and version that wrote it, at temperature 1 and before any bias, limit or
    constraint of the sampling, where the source gives them."""
    tokenizer: str = ""
    """Fingerprint of the tokenizer that the ids belong to."""
    prompt_tokens: int = 0
    """Tokens of all that stood before it; 0 where nobody counted."""
    written_tokens: int = 0
    """Tokens of it, as counted by a source that gives no ids."""
    cost: float = 0.0
    """In US dollars."""
    seconds: float = field(default=0.0, compare=False)
    """Wall time from the request to the end of the reply."""
    calls: tuple[ToolCall | MalformedCall, ...] | None = None
    """The calls, where the policy's interface tells them apart from the text; None where the format reads the text."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    """For each token, the likeliest tokens at its place with their log-probabilities; empty unless asked for."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply and its outcome: calls, each with its observation, or an answer and neither."""

    __pydantic_config__ = {"extra": "forbid"}  # a log of another form is refused, never read in part

    completion: Completion
    calls: tuple[ToolCall | MalformedCall, ...] = ()
    """In the order that they were written; they run at once."""
    observations: tuple[Observation, ...] = ()
    """One for each call."""

    @property
    def call(self) -> ToolCall | MalformedCall | None:
        """The call of a reply that makes one; the first where it makes several."""
        return self.calls[0] if self.calls else None

    @property
    def observation(self) -> Observation | None:
        """What came back from that call."""
        return self.observations[0] if self.observations else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One whole attempt at one task by one policy."""

    id: str = ""
    """Unique in its run: round, task, source and number."""
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
    """Why it came to no end of its own: where ``stop`` is ``failed``, ``cut`` or ``prompt_limit``."""
    environment_reward: float | None = None
    """What the environments of its tools said it is worth; None where none has a word on it."""

    @property
    def finished(self) -> bool:
        """Whether the policy brought it to an end by itself; else the infrastructure did, and it is never judged."""
        ended = self.stop not in ("cut", "failed")
        return ended and all(observation.status != "unavailable" for observation in self.observations)

    @property
    def calls(self) -> tuple[ToolCall | MalformedCall, ...]:
        """Every call in order, malformed ones included."""
        return tuple(call for turn in self.turns for call in turn.calls)

    @property
    def called(self) -> bool:
        """Whether the policy set out to call a tool."""
        return any(turn.calls for turn in self.turns)

    @property
    def malformed(self) -> bool:
        return any(isinstance(call, MalformedCall) for call in self.calls)

    @property
    def observations(self) -> tuple[Observation, ...]:
        return tuple(observation for turn in self.turns for observation in turn.observations)

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
