"""How a config says that tools' rows are learned; ``rl.learner.tool_head`` does it."""

from pydantic import Field

from rl.config import Strict


class HeadFit(Strict):
    """How the rows are learned."""

    epochs: int = Field(default=20, gt=0)
    lr: float = Field(default=1e-2, gt=0)
    """Of Adam, without decay."""
    batch_size: int = Field(default=8, gt=0)
    """Texts of one step; 1 is as published."""
    only_tools: bool = False
    """Leave places of words out (``only_functoken``)."""
    seed: int = 0
