"""How a config says that ToolkenGPT is run; ``rl.recipes.toolkengpt`` does it."""

from typing import Annotated, Literal

from pydantic import Field

from rl.config import Strict
from rl.data.tasks.funcqa import FuncQa
from rl.data.tasks.gsm8k_xl import Gsm8kXl
from rl.data.tasks.kamel import Kamel
from rl.data.tasks.virtualhome import VirtualHome
from rl.learner.head_fit import HeadFit
from rl.learner.schedule import OptimiserConfig
from rl.models.choice import ModelConfig, TinyModel


class Language(Strict):
    """How a model that is built here learns the language of the training texts, before it is frozen."""

    steps: int = Field(default=1500, gt=0)
    batch_size: int = Field(default=16, gt=0)
    optimiser: OptimiserConfig = OptimiserConfig()


class Feedback(Strict):
    """How the rows are improved by what their calls come to."""

    rounds: int = Field(default=3, gt=0)
    tasks: int = Field(default=128, gt=0)
    """Training questions of each round."""
    attempts: int = Field(default=8, gt=1)
    """At each of them."""
    temperature: float = Field(default=1.0, gt=0)
    fit: HeadFit = HeadFit(epochs=2, lr=3e-3, batch_size=64)


class ToolkenGptConfig(Strict):
    """A ToolkenGPT run."""

    recipe: Literal["toolkengpt"] = "toolkengpt"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the run; its folder is ``storage/name`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(default=0, ge=0)
    storage: str = "runs"
    data: Annotated[FuncQa | Gsm8kXl | Kamel | VirtualHome, Field(discriminator="kind")] = FuncQa()
    model: ModelConfig = TinyModel(vocab_size=2048, max_length=256)
    language: Language = Language()
    head: HeadFit = HeadFit()
    template: str | None = None
    """What stands before a reply, around ``[QUESTION]``; as the data's texts put it by default."""
    calls_template: str | None = None
    """The same before texts in which calls are written: tool mode, and the inline baseline. ``With calls.`` and the
    template by default."""
    shots: int = Field(default=0, ge=0)
    """Worked answers before each question, for a model that did not learn the training texts as language: in words in
    reasoning mode, with calls of that very tool in tool mode. 4 as published."""
    biases: list[float] = Field(default=[0.0, 1.0, 2.0, 3.0, 4.0, 6.0], min_length=1)
    """Added to tools' logits; the one with the best F1 on the validation texts is taken."""
    questions: int | None = Field(default=None, gt=0)
    """Of each test set at most; all by default."""
    max_calls: int = Field(default=4, gt=0)
    max_tokens: int = Field(default=96, gt=0)
    """Of one reply."""
    head_workers: int = Field(default=0, ge=0)
    """Ray workers that hold the places and share out each step of learning the rows; 0 learns them in this process."""
    feedback: Feedback | None = Feedback()
    """None ends where the paper does."""
