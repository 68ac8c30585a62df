"""How stage 1 is set up: what behaviour cloning imitates, and what it starts from."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rewards.ranking import GOLD
from rl.config import Strict
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Objective, Sft


class Annotators(Strict):
    """Annotators who are always right, and call a tool at random, needed or not."""

    kind: Literal["annotators"] = "annotators"
    call_rate: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    """By level, the probability of a call, needed or not; one half for a level that is not named. By default always
    where a call is known. The answers are right either way."""


class OwnAnswers(Strict):
    """TRICE's stage-1 data: a question that the policy answers rightly by itself keeps that answer, and one that it
    does not gets a teacher's call, really executed. What is done is kept, by task, and not done again."""

    kind: Literal["own_answers"] = "own_answers"
    teacher: str = GOLD
    """Who writes the calls: ``gold`` (those that the tasks know), ``live`` (the policy itself, made to call), or one of
    ``policies``, such as a model behind an endpoint."""
    attempts: int = Field(default=1, gt=0)
    """Of the teacher at each question; the first that is right is imitated, and where none is, the question is left
    out."""
    temperature: float = Field(default=0.0, ge=0)
    """Of the teacher; 0 is greedy."""
    shots: int = Field(default=0, ge=0)
    """Solved examples, all with a call, that the teacher reads before each question."""
    max_tokens: int = Field(default=128, gt=0)
    """Of one reply."""
    questions: int | None = Field(default=None, gt=0)
    """Asked at most; all by default. Each is asked once, however often the tasks have it."""


DemonstratorConfig = Annotated[Annotators | OwnAnswers, Field(discriminator="kind")]


class Foundation(Strict):
    """What a model made from random weights is taught before it can be asked anything: to answer, and to call."""

    steps: int = Field(gt=0)
    demonstrator: Annotators = Annotators()
    optimiser: OptimiserConfig | None = None
    """That of cloning by default, which begins again with a fresh one."""


class Cloning(Strict):
    """Behaviour cloning: imitate demonstrations."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0)
    """Demonstrations of one step."""
    demonstrator: DemonstratorConfig = Annotators()
    foundation: Foundation | None = None
    """A stage before cloning, with its objective; its end is the policy that ``own_answers`` asks."""
    objective: Objective = Sft()
    optimiser: OptimiserConfig = OptimiserConfig()
    save_every: int = Field(default=400, gt=0)
    """Steps between checkpoints."""

    @model_validator(mode="before")
    @classmethod
    def _annotators_by_default(cls, content: Any) -> Any:
        """A demonstrator without a kind is of annotators."""
        demonstrator = content.get("demonstrator") if isinstance(content, Mapping) else None
        if not isinstance(demonstrator, Mapping) or "kind" in demonstrator:
            return content
        return {**content, "demonstrator": {"kind": "annotators", **demonstrator}}

    @property
    def annotators(self) -> Annotators:
        """Who is imitated where no policy is asked: the demonstrator, or else that of the foundation."""
        if isinstance(self.demonstrator, Annotators):
            return self.demonstrator
        return self.foundation.demonstrator if self.foundation else Annotators()

    @property
    def base_step(self) -> int:
        """The step at which the foundation ends."""
        return self.foundation.steps if self.foundation else 0
