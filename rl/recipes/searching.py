"""How a config says that attempts search; ``rollouts.search`` does it."""

from pydantic import Field

from rl.config import Strict
from rollouts.search import Method, Searching


class SearchConfig(Strict):
    """An attempt that goes back where a way comes to nothing, and tries another; what comes of it is its best way."""

    method: Method = "dfs"
    """``dfs`` goes back as far as it has to (ToolBench's DFSDT); ``chain`` begins anew each time (``CoT@n``)."""
    width: int = Field(default=2, gt=0)
    """Replies that are tried in one place; of chains, how many there are."""
    queries: int = Field(default=200, gt=0)
    """Replies in all, after which an attempt ends."""
    answers: int = Field(default=1, gt=0)
    """Answers after which it ends."""
    back: int = Field(default=2, gt=0)
    """Replies to go back over after one that gives up: 1 asks again in its place, 2 in that of the call before it."""

    def build(self, depth: int) -> Searching:
        """The search, of ways of so many replies."""
        return Searching(
            method=self.method,
            width=self.width,
            depth=depth,
            queries=self.queries,
            answers=self.answers,
            back=self.back,
        )

    def replies(self, depth: int) -> int:
        """Replies of one attempt at most, of ways of so many."""
        if self.method == "chain":
            return min(self.queries, self.width * depth)
        grown = 0
        for level in range(1, depth + 1):
            grown += self.width**level
            if grown >= self.queries:
                return self.queries
        return grown
