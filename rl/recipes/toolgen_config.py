"""How a config says that ToolGen is run; ``rl.recipes.toolgen`` does it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.config import FolderPath, ModelPath, Strict
from rl.data.tasks.own_catalog import OwnCatalog
from rl.data.tasks.toolbench import ToolBench
from rl.data.ways import Kept
from rl.learner.footprint import Precision
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Objective, Rrhf, Sft
from rl.models.choice import Indexing, ModelConfig, TinyModel
from rl.recipes.learnable import Fit, unshared
from rl.recipes.parts import Cluster, LearnerSettings
from rl.recipes.searching import SearchConfig


class StageConfig(Strict):
    """One stage of learning; 0 steps leave it out."""

    steps: int = Field(default=600, ge=0)
    batch_size: int = Field(default=16, gt=0)
    optimiser: OptimiserConfig = OptimiserConfig()


class RetrievalConfig(StageConfig):
    """The stage that learns from requests which tools answer them."""

    written: int = Field(default=0, ge=0)
    """Requests for each tool that are written from its documentation and learned beside the given ones; see
    ``rl.data.written_requests``. Tools that nobody asks for are not learned to be found without."""
    repeated: int = Field(default=1, gt=0)
    """Times that each given request stands among them."""
    rehearsed: bool = False
    """Whether the tools' documentation is learned beside the requests, so that it is not forgotten."""


class Feedback(Strict):
    """How the policy is improved by which of the tools that it comes to are those that answer."""

    rounds: int = Field(default=2, gt=0)
    steps: int = Field(default=60, gt=0)
    """Of each round."""
    batch_size: int = Field(default=16, gt=0)
    found: int = Field(default=8, gt=1)
    """Tools that beam search gives for each request; ranked by whether they are wanted."""
    objective: Objective = Rrhf()
    optimiser: OptimiserConfig = OptimiserConfig(kind="adamw", lr=3e-4)


class Attempts(Strict):
    """How the policy attempts requests with its tools: where it is measured, served and talked to.

    It names a tool, reads its documentation, writes its arguments, reads what came back, and so on until its answer.
    """

    tasks: int = Field(default=0, ge=0)
    """Held-out requests that are attempted at the end of a run, with tools whose answers are made up by their schemas;
    0 leaves that out."""
    provider: Literal["truth", "retriever", "all"] = "truth"
    """Which tools may be named: those that the request comes with, the nearest to it by BM25, or all. Whoever is served
    sends the tools, and none beyond them is named."""
    retrieved: int = Field(default=5, gt=0)
    """Tools that the retriever gives."""
    max_turns: int = Field(default=5, gt=0)
    """Calls of one way."""
    max_tokens: int = Field(default=256, gt=0)
    """Of one reply: a thought, a tool, its arguments."""
    max_arguments: int = Field(default=128, gt=0)
    """Tokens of a call's arguments."""
    held_to_schema: bool = True
    """Whether arguments are held to the JSON schema of their tool, as far as that can be enforced."""
    max_documentation: int = Field(default=1024, gt=0)
    """Characters of a tool's documentation that are read."""
    max_observation: int = Field(default=1024, gt=0)
    """Characters of a tool's answer that are read."""
    retries: list[Annotated[float, Field(ge=0)]] = []
    """Temperatures of further tries after a call that was made before, or an end without an answer, or with an excuse;
    [0.6, 1, 1, 1] is the original's."""
    search: SearchConfig | None = None
    """Whether attempts search; by default each is one way."""


class Recorded(Strict):
    """Attempts of other runs, which the agent stage learns from."""

    runs: list[FolderPath] = []
    """Folders of runs that rank attempts at tasks with these tools. Of each group the best attempt is learned that came
    to an answer and called none but these tools."""
    min_reward: float | None = None
    """Reward below which even the best is left out."""


class Fitting(Strict):
    """How this process fits the stages, where no ``learner`` does, and measures."""

    gpu: bool = False
    """Whether it does so on its GPU."""
    precision: Precision = "fp32"
    """What products are computed in; weights, gradients and sums stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, a third more time."""


class ToolGenConfig(Strict):
    """A ToolGen run."""

    recipe: Literal["toolgen"] = "toolgen"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the run; its folder is ``storage/name`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(default=0, ge=0)
    storage: str = "runs"
    data: Annotated[ToolBench | OwnCatalog, Field(discriminator="kind")] = ToolBench()
    """The tools, and the requests that they answer."""
    stage_files: FolderPath | None = None
    """Folder with ``tool_memorization.json``, ``retrieval_training.json`` and ``agent_tuning.json``, whose rows are
    learned beside those that are built here; ``sharegpt-STAGE.json`` in it is read as ToolGen's own form, and in a
    folder ``trees`` ToolBench's trees and chains, of which the ways that came to an answer are learned."""
    trees: Kept = Kept()
    """Which ways in ``trees``, and which attempts of ``recorded``, are learned."""
    recorded: Recorded = Recorded()
    model: ModelConfig = TinyModel(vocab_size=2048, max_length=192)
    indexing: Indexing = "atomic"
    memorisation: StageConfig = StageConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    agent: StageConfig = StageConfig(steps=0)
    """Learned from ``stage_files`` and ``recorded`` alone: StableToolBench has no attempts."""
    feedback: Feedback | None = Feedback()
    """None ends where the paper does."""
    beams: int = Field(default=5, gt=0)
    encoder: ModelPath | None = None
    """A sentence encoder in Hugging Face's format, whose nearest tools by cosine are a baseline beside BM25."""
    attempts: Attempts = Attempts()
    fitting: Fitting = Fitting()
    learner: LearnerSettings | None = None
    """Ranks of a Ray cluster that fit the stages; None fits them in this process."""
    ray: Cluster = Cluster()

    @model_validator(mode="after")
    def _fitted_somewhere(self) -> "ToolGenConfig":
        if self.learner is None:
            if self.model.adapter and self.model.adapter.kind == "qlora" and not self.fitting.gpu:
                raise ValueError("model.adapter.kind qlora needs a GPU; set fitting.gpu: true, or take kind lora")
            return self
        if unread := self.fitting.model_fields_set - {"gpu"}:
            raise ValueError(f"fitting.{sorted(unread)[0]}: the ranks fit the stages; say it of learner")
        stages = {"memorisation": self.memorisation, "retrieval": self.retrieval, "agent": self.agent}
        fits: dict[str, Fit] = {
            name: (one.batch_size, one.optimiser, Sft()) for name, one in stages.items() if one.steps
        }
        if (one := self.feedback) is not None:
            fits["feedback"] = (one.batch_size, one.optimiser, one.objective)
        if problem := next(unshared(self.learner, self.ray, self.model, fits), ""):
            raise ValueError(problem)
        return self
