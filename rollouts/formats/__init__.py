"""How tasks, calls and observations are written: the words between an episode and a policy."""

from collections.abc import Sequence
from typing import Protocol

from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.types import Force, Task, Turn


class Format(Protocol):
    """A prompt style and its parser. Every format extends the text only at its end: what was read stays a prefix."""

    name: str
    stop: tuple[str, ...]
    """A reply ends with the first of these."""
    parallel: bool = False
    """Whether one reply may make several calls."""
    apart: bool = False
    """Whether the policy tells its calls beside its text, in which there is nothing of them."""

    def opening(self, task: Task, specs: Sequence[ToolSpec]) -> str:
        """What the policy reads first."""
        ...

    def observed(self, turn: Turn) -> str:
        """What the policy reads after a reply that called."""
        ...

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        """The calls that a reply makes; none where it answers."""
        ...

    def gives_up(self, call: MalformedCall) -> bool:
        """Whether an episode ends with this malformed call, as with some published agents; else it is told why."""
        return False

    def answer(self, text: str) -> str:
        """The answer in a reply that makes no call."""
        ...

    def answer_so_far(self, text: str, specs: Sequence[ToolSpec]) -> str | None:
        """The part of the answer that no later word of a growing reply can take back; None while it may be a call."""
        ...

    def forced(self, force: Force, specs: Sequence[ToolSpec]) -> str:
        """What a reply begins with that is made to call, or to answer; empty where no beginning can do that."""
        ...

    def write_call(self, call: ToolCall, specs: Sequence[ToolSpec]) -> str:
        """The reply that makes this call."""
        ...

    def write_calls(self, calls: Sequence[ToolCall], specs: Sequence[ToolSpec], content: str = "") -> str:
        """The reply that says something and then makes these calls: one, unless the format is ``parallel``."""
        said = f"{content.rstrip()}\n" if content.strip() else ""
        return said + "".join(self.write_call(call, specs) for call in calls[:1])

    def write_answer(self, answer: str) -> str:
        """The reply that gives this answer."""
        ...

    def markers(self, specs: Sequence[ToolSpec]) -> tuple[str, ...]:
        """The pieces of grammar that a tokenizer built for this format keeps whole."""
        ...
