"""How a config says that ToolAlpaca is run; ``rl.recipes.toolalpaca`` does it."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from executors.corpus.entries import Entry, read_entries
from rl.config import FilePath, Strict
from rl.data.tasks.benchmark import data_folder
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Objective, Rrhf, Sft
from rl.models.choice import ModelConfig, TinyModel
from rl.recipes.learnable import Fit, unshared
from rl.recipes.parts import Cluster, LearnerSettings
from rl.serving.sources import EndpointConfig, PolicyConfig, VllmConfig
from rollouts.instructions import Style


class WritersConfig(Strict):
    """Which of ``policies``, endpoints all, writes each part of the corpus; a script does where none is named."""

    apis: str | None = None
    """Introductions, functions and OpenAPI documents."""
    requests: str | None = None
    """What users ask for. Nobody knows the calls that it means, so that an assistant has to be named too."""
    assistant: str | None = None
    """Attempts the requests."""
    user: str | None = None
    """Answers what the assistant asks."""
    simulation: str | None = None
    """Answers in the API's place."""
    tries: int = Field(default=5, gt=0)
    """At a document, each told what was wrong with the one before."""
    pieces: int = Field(default=4, gt=0)
    """Of a reply that is cut: the model is asked to go on."""
    max_tokens: int = Field(default=2000, gt=0)
    """Of a piece."""
    max_functions: int = Field(default=8, gt=0)
    """Of an API."""
    rolls: int = Field(default=5, gt=0)
    """Replies to one call of ``simulation``, of which the first success counts, or a failure that is repeated."""
    temperature: float = Field(default=0.0, ge=0)
    """Of the assistant; 0 is greedy."""
    at_once: int = Field(default=4, gt=0)
    """APIs that are worked on at the same time."""

    @property
    def parts(self) -> dict[str, str]:
        """The policies by the parts that they write."""
        named = {part: getattr(self, part) for part in ("apis", "requests", "assistant", "user", "simulation")}
        return {part: name for part, name in named.items() if name is not None}

    @model_validator(mode="after")
    def _followed(self) -> "WritersConfig":
        if self.requests is not None and self.assistant is None:
            raise ValueError("requests that a model writes have no plan for the script to follow: name an assistant")
        return self


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
    distractors: int = Field(default=0, ge=0)
    """Other APIs, of those learned from or of those held out, whose functions are offered beside the right one's."""
    at_once: int = Field(default=32, gt=0)
    """Attempts at requests to one API that are under way at the same time."""
    writers: WritersConfig = WritersConfig()

    def listed(self) -> list[Entry]:
        """The list of APIs.

        Raises:
            ConfigError: there is none.
            DataError: it is no such list.
        """
        return read_entries(Path(self.entries) if self.entries else data_folder("toolalpaca") / "public_apis.json")


class CopyingConfig(Strict):
    """What a model that begins from random weights learns before the corpus: to copy what users say into calls.

    The script attempts further requests to the APIs that are learned from, and its first calls are read behind the
    user's words alone: documentation and observations make up nine tenths of an attempt, and little of them is copied.
    """

    instances: int = Field(default=4000, gt=0)
    """Attempts over all APIs that are learned from; more than the corpus has, with other values."""
    steps: int = Field(default=800, gt=0)
    batch_size: int = Field(default=32, gt=0)
    objective: Objective = Sft()
    optimiser: OptimiserConfig = OptimiserConfig(lr=3e-3)


class LearningConfig(Strict):
    """How the corpus is learned."""

    copying: CopyingConfig | None = None
    """None begins with the corpus: for a model that can copy."""
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

    MAY_DIFFER: ClassVar = ("policies",)
    """What may be another on resuming, such as a budget: what was written stays as it is."""
    recipe: Literal["toolalpaca"] = "toolalpaca"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the run; its folder is ``storage/name`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(default=0, ge=0)
    storage: str = "runs"
    policies: dict[str, PolicyConfig] = {}
    """Models that write the corpus, by the names that ``corpus.writers`` has for them."""
    corpus: CorpusConfig = CorpusConfig()
    model: ModelConfig = TinyModel(vocab_size=2048, max_length=1024)
    learning: LearningConfig = LearningConfig()
    improvement: ImprovementConfig | None = None
    """None ends where the paper does."""
    learner: LearnerSettings | None = None
    """Ranks of a Ray cluster that fit the policy; None fits it in this process."""
    ray: Cluster = Cluster()
    max_turns: int = Field(default=6, gt=0)
    max_tokens: int = Field(default=160, gt=0)
    """Of one reply."""

    @model_validator(mode="after")
    def _enough(self) -> "ToolAlpacaConfig":
        if self.corpus.instances < self.corpus.apis:
            raise ValueError(f"corpus.instances: {self.corpus.instances} are fewer than corpus.apis {self.corpus.apis}")
        others = min(self.corpus.apis, self.corpus.held_out) - 1
        if self.corpus.distractors > others:
            raise ValueError(
                f"corpus.distractors: {self.corpus.distractors}, and beside one API there are {others} more in the "
                "smaller of corpus.apis and corpus.held_out; take fewer, or more APIs"
            )
        for part, name in self.corpus.writers.parts.items():
            if not isinstance(self.policies.get(name), EndpointConfig | VllmConfig):
                there = ", ".join(self.policies) or "none"
                raise ValueError(f"corpus.writers.{part}: {name!r} is no endpoint among policies: {there}")
        if problem := next(unshared(self.learner, self.ray, self.model, self._fits), ""):
            raise ValueError(problem)
        if unread := self.policies.keys() - set(self.corpus.writers.parts.values()):
            raise ValueError(f"policies: nothing is written by {sorted(unread)[0]!r}; name it in corpus.writers")
        return self

    @property
    def _fits(self) -> dict[str, Fit]:
        """What ranks would learn, by section."""
        stages: dict[str, LearningConfig | CopyingConfig | ImprovementConfig | None] = {
            "learning": self.learning,
            "learning.copying": self.learning.copying,
            "improvement": self.improvement,
        }
        return {name: (one.batch_size, one.optimiser, one.objective) for name, one in stages.items() if one is not None}
