"""How a config says that a policy is improved; ``rl.improve`` does it."""

from pydantic import Field

from rl.config import Strict
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Listwise, Objective
from rl.refresh import Refresh


class Improvement(Strict):
    """How a policy is improved on ranked candidates."""

    rounds: int = Field(gt=0)
    tasks_per_round: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    """Tasks of one step; the candidates of a task stay together."""
    objective: Objective = Listwise()
    optimiser: OptimiserConfig = OptimiserConfig()
    max_lag: int = Field(default=1, ge=0)
    """Rounds that the weights that play may be behind; 0 plays and learns by turns."""
    refresh: Refresh = Refresh()
    """Which weights play; those of ``iterative`` and ``offline`` are as old as that says."""
    validate_every: int = Field(default=4, gt=0)
    """Rounds between checkpoints, each judged on the validation tasks."""

    @property
    def steps_per_round(self) -> int:
        return -(-self.tasks_per_round // self.batch_size)

    @property
    def steps(self) -> int:
        return self.rounds * self.steps_per_round
