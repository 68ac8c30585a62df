"""How a config says that ToolAlpaca is run; ``rl.recipes.toolalpaca`` does it."""

from typing import Literal

from pydantic import Field, model_validator

from rl.config import FilePath, Strict
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Objective, Rrhf, Sft
from rl.models.choice import ModelConfig, TinyModel
from rollouts.instructions import Style


class CorpusConfig(Strict):
    """What the corpus is made of."""

    entries: FilePath | None = None
    """The list of APIs; ToolAlpaca's ``public_apis.json`` below ``$APPRENTICE_DATA`` by default."""
    apis: int = Field(default=50, gt=0)
    """Learned from."""
    held_out: int = Field(default=10, gt=0)
    """APIs that nothing is learned from, to measure on."""
    instances: int = Field(default=500, gt=0)
    """Attempts over all APIs that are learned from."""
    test_requests: int = Field(default=10, gt=0)
    """To each held-out API."""
    style: Style = "short"
    at_once: int = Field(default=32, gt=0)
    """Attempts under way at the same time."""


class LearningConfig(Strict):
    """How the corpus is learned."""

    steps: int = Field(default=600, gt=0)
    batch_size: int = Field(default=8, gt=0)
    objective: Objective = Sft()
    optimiser: OptimiserConfig = OptimiserConfig()


class ImprovementConfig(Strict):
    """How the policy is improved by what the rule says of its own attempts at requests it learned from."""

    rounds: int = Field(default=2, gt=0)
    requests: int = Field(default=32, gt=0)
    """Of each round."""
    attempts: int = Field(default=4, gt=1)
    """At each request."""
    temperature: float = Field(default=0.8, gt=0)
    steps: int = Field(default=40, gt=0)
    """Of each round."""
    batch_size: int = Field(default=8, gt=0)
    objective: Objective = Rrhf()
    optimiser: OptimiserConfig = OptimiserConfig(kind="adamw", lr=3e-4)


class ToolAlpacaConfig(Strict):
    """A ToolAlpaca run."""

    recipe: Literal["toolalpaca"] = "toolalpaca"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the run; its folder is ``storage/name`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(default=0, ge=0)
    storage: str = "runs"
    corpus: CorpusConfig = CorpusConfig()
    model: ModelConfig = TinyModel(vocab_size=2048, max_length=1024)
    learning: LearningConfig = LearningConfig()
    improvement: ImprovementConfig | None = None
    """None ends where the paper does."""
    max_turns: int = Field(default=6, gt=0)
    max_tokens: int = Field(default=160, gt=0)
    """Of one reply."""

    @model_validator(mode="after")
    def _enough(self) -> "ToolAlpacaConfig":
        if self.corpus.instances < self.corpus.apis:
            raise ValueError(f"corpus.instances: {self.corpus.instances} are fewer than corpus.apis {self.corpus.apis}")
        return self
