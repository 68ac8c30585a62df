"""What the episode loop asks of a policy, and the policies that follow a script."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from executors.errors import ApprenticeError, DataError
from rollouts.types import Completion, Force, Sampling, Task, Turn


class PolicyUnavailableError(ApprenticeError):
    """The policy could not reply for reasons that are not its own: an endpoint, a worker, a missing recording."""


class PromptTooLongError(PolicyUnavailableError):
    """What the policy was to read is longer than what it can: the episode ends there, with ``prompt_limit``."""


class Constraint(Protocol):
    """Which tokens a reply may go on with: a trie of tool tokens, a grammar."""

    def allowed(self, ids: Sequence[int]) -> Sequence[int] | None:
        """The token ids that may follow ``ids``, the reply's tokens so far; None where any may.

        It is asked once for each token, in order, and may keep a state of its own for one reply. A reply ends only
        where an end token is among the allowed ones, or where it is cut.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One reply asked of a policy.

    ``segments`` is the episode so far: text (the prompt, observations) and completions in turn. A policy that samples
    tokens encodes each text by itself and takes the completions' token ids as they are, so that what was sampled is
    never tokenised again, and what it read before stands as a prefix.
    """

    task: Task
    segments: tuple[str | Completion, ...]
    session: str
    """The same for every reply of one episode: what was computed for it may be kept until ``release``."""
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    """A reply ends with the first of these, which stays in its text."""
    prefix: str = ""
    """What the reply is made to begin with."""
    force: Force | None = None
    """What the reply is made to do, for policies that cannot be given its beginning."""
    turns: tuple[Turn, ...] = ()
    """The episode so far as values, for policies that are told of calls and observations rather than of text."""
    seed: int = 0
    on_text: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    """Told the reply's text so far, every few tokens, by a policy that writes it bit by bit."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a reply as ``stop`` does, for policies that write tokens."""
    constraint: Constraint | None = field(default=None, compare=False, repr=False)
    """Which tokens the reply may hold, what it is made to begin with apart, for policies that write tokens."""
    adapter: str = ""
    """Which of the policy's adapters writes the reply; empty for the model as it is."""
    tried: tuple[Turn, ...] = ()
    """What a search tried in this very place before, and what came of it; the segments say so too."""

    @property
    def turn(self) -> int:
        """Index of the reply asked for."""
        return sum(isinstance(segment, Completion) for segment in self.segments)


class Policy(Protocol):
    """Anything that replies. A new model backend is one of these; ``rl.serving`` has the engines."""

    name: str
    version: int

    async def complete(self, request: Request) -> Completion:
        """Reply once. Raises PolicyUnavailableError where that fails for reasons of infrastructure."""
        ...

    def release(self, session: str) -> None:
        """The episode is over: forget what was kept for it."""
        ...

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        """Take published weights: numpy arrays by parameter name, copied."""
        ...


class ScriptedPolicy:
    """Replies by a script: gold answers, recorded answers, tests."""

    def __init__(self, name: str, script: Callable[[Task], Sequence[str]]) -> None:
        """
        Args:
            name: of the policy.
            script: the replies to a task, in order; a reply asked for beyond the last is empty. It raises
                PolicyUnavailableError for a task that it does not know.
        """
        self.name = name
        self.version = 0
        self.script = script

    async def complete(self, request: Request) -> Completion:
        replies = self.script(request.task)
        text = replies[request.turn] if request.turn < len(replies) else ""
        return Completion(text=text, finish="stop" if text.endswith(request.stop or ("\0",)) else "end")

    def release(self, session: str) -> None:
        pass

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        raise DataError(f"{self.name} follows a script and has no weights to load")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One way of attempting a task: a policy, how it is sampled, and what it is made to do."""

    name: str
    policy: str
    """Name of the policy among those that the worker holds."""
    count: int = 1
    sampling: Sampling = Sampling()
    force: Force | None = None
    adapter: str = ""
    """Which of the policy's adapters writes its replies; empty for the model as it is."""


def derive_seed(*parts: object) -> int:
    """A seed below 2**53 that depends on all the parts and on nothing else."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11
