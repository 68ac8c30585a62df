"""How a config says how much is explored, and how; ``rl.explore`` does it."""

from typing import Literal

from pydantic import Field

from rl.config import Strict


class Ablations(Strict):
    """What exploring may do without, to see what it is worth."""

    execution: bool = True
    """Run the calls; else they are only accepted, and nothing comes back."""
    short_term: bool = True
    """Let a trial know of those before it in its sitting, and of the calls that failed in it."""
    long_term: bool = True
    """Let whoever imagines know of earlier sittings."""
    reflection: bool = True
    """Judge whether a trial was solved: it ends there, and exploring goes where trials were not."""


class Exploration(Strict):
    """How much is explored, and how."""

    episodes: int = Field(default=8, gt=0)
    """Sittings with each tool, on average."""
    trials: int = Field(default=4, gt=0)
    """Of one sitting."""
    max_turns: int = Field(default=2, gt=0)
    """Calls of one attempt at most."""
    ltm_sync: Literal["strict"] | int = "strict"
    """``strict``: each episode knows all before it; k: waves of k episodes run at once, and share what came before."""
    tools_at_once: int = Field(default=16, gt=0)
    """Tools that are explored side by side."""
    focus: float = Field(default=0.25, ge=0, le=1)
    """Share of the sittings that goes to tools whose trials were not solved, as often as that was."""
    in_context: bool = False
    """Whether a policy reads the trials before in its prompt; for models that learn from what they read."""
    max_calls: int | None = Field(default=None, gt=0)
    """Calls of all trials together, those of former runs included. Trials that run are finished."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Read and written by policies and imaginers together."""
    max_usd: float | None = Field(default=None, gt=0)
    """What all of it may cost. This budget and those above are of one exploration: each of the ablations, and what the
    arm ``documented`` reads, has as much again."""
    one_tool: bool = True
    """Whether an attempt may call only the tool that is explored; else it has to choose among all."""
    without: Ablations = Ablations()

    @property
    def wave(self) -> int:
        """Episodes of a tool that run at once."""
        return 1 if self.ltm_sync == "strict" else max(1, self.ltm_sync)
