"""How a config says that STE is run; ``rl.recipes.ste`` does it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from executors.catalog import Catalog
from executors.endpoint import EndpointClient
from executors.errors import ConfigError
from executors.named import load_catalog
from rl.config import FilePath, ModelPath, Strict
from rl.data.formats import FormatConfig, React
from rl.exploration import Exploration
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Objective, Rrhf, Sft
from rl.models.choice import ModelConfig, TinyModel
from rl.recipes.learnable import Fit, unshared
from rl.recipes.parts import Cluster, LearnerSettings
from rl.serving.sources import EndpointConfig, Placement, PolicyConfig, VllmConfig
from rollouts.types import Force

LIVE, IMAGINED = "live", "imagined"
Part = Literal["execution", "short_term", "long_term", "reflection"]
"""What exploring can do without."""
Arm = Literal["icl", "ft", "ranked", "tokens", "control", "documented"]
"""What becomes of what was found: shown in the prompt; imitated; ranked; imitated by the new tools' tokens alone, of a
frozen model; and, to compare, more of the demonstrations alone, or what the new tools' documentation alone gives."""


class Learning(Strict):
    """One fit."""

    steps: int = Field(default=300, gt=0)
    batch_size: int = Field(default=32, gt=0)
    optimiser: OptimiserConfig = OptimiserConfig()
    objective: Objective = Sft()


class Known(Strict):
    """What the policy is taught before it explores: some tools, by demonstrations."""

    tools: list[str] = Field(min_length=1)
    demonstrations: int = Field(default=60, gt=0)
    """Of each."""
    in_context: float = Field(default=0.3, ge=0, le=1)
    """Share of them that is read behind others, so that demonstrations can be used later."""
    renamed: float = Field(default=0.5, ge=0, le=1)
    """Share of these whose tool bears the name of one yet to be met, so that it has to be read and not recalled."""
    learning: Learning = Learning()


class SchemaImagination(Strict):
    """Queries from a tool's schema, with no model."""

    kind: Literal["schema"] = "schema"
    max_similarity: float = Field(default=0.9, gt=0, le=1)
    """To any query that was tried; what is nearer is imagined anew."""
    errors: float = Field(default=0.05, ge=0, le=1)
    """Share of the queries that mean a call which the tool is likely to refuse."""


class ModelImagination(Strict):
    """Queries that a model writes, asked as STE asks it."""

    kind: Literal["model"] = "model"
    policy: str
    """One of ``policies``, an endpoint."""
    max_similarity: float = Field(default=0.9, gt=0, le=1)
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=360, gt=0)
    """Of a reply."""


class ActorConfig(Strict):
    """Who attempts a query, and how."""

    policy: str = LIVE
    """``live``, the policy that explores; ``imagined``, which makes the call that the query means, where it means one;
    or one of ``policies``."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    max_tokens: int = Field(default=64, gt=0)
    """Of one reply."""
    force: Force | None = None
    """Make the first reply begin with a call, or with an answer."""


class InContext(Strict):
    """How the arm that learns in context is prompted."""

    shown: int = Field(default=2, gt=0)
    """Demonstrations of one prompt."""
    encoder: ModelPath | None = None
    """A sentence encoder's directory, whose hidden states are averaged; BM25 without."""
    tools: Literal["oracle", "neighbours", "full"] | None = None
    """Which tools the prompt describes: the expected one among its neighbours, those that the query finds, or all; none
    by default, for a policy that knows them by heart."""
    listed: int = Field(default=15, gt=0)
    """Of these at most."""


class Exploitation(Strict):
    """How what was found is learned."""

    arms: list[Arm] = ["icl", "ft", "ranked", "control"]
    target: int = Field(default=60, gt=0)
    """Examples of each tool, paraphrases included."""
    most: int | None = Field(default=6, gt=0)
    """Of one query and its paraphrases."""
    responses: bool = False
    """Whether the answer after the call is learned too."""
    rehearsal: float = Field(default=0.3, ge=0, le=1)
    """Share of what was learned before that is read again."""
    general: FilePath | None = None
    """A file of general dialogues that are mixed in, in STE's form."""
    modes: bool = False
    """Whether prompts say if tools are asked for, as STE's system messages do."""
    learning: Learning = Learning()
    documented: Learning | None = None
    """Of the arm that learns from documentation alone; as ``learning`` by default. More steps make up for what
    exploring took."""
    rounds: Learning | None = None
    """Of one round of continual learning; as ``learning`` by default."""
    ranking: Objective = Rrhf()
    """Of the arm that learns by rank."""
    tokens_lr: float = Field(default=0.02, gt=0, lt=1)
    """Peak learning rate of the arm that learns tokens alone."""
    in_context: InContext = InContext()
    tolerance: float = Field(default=0.2, ge=0, le=1)
    """How far the share of right calls of a known tool may fall, on held-out queries, in a policy that is published."""


class SteConfig(Strict):
    """A run of STE."""

    MAY_DIFFER: ClassVar = (
        "exploration.max_calls",
        "exploration.max_tokens",
        "exploration.max_usd",
        "exploitation.arms",
        "exploitation.documented",
        "ablations",
        "place",
        "ray",
    )
    """What may be raised or added when a run is resumed: nothing that was made before depends on it."""
    recipe: Literal["ste"] = "ste"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0)
    storage: str = "runs"
    tools: list[str | dict[str, dict[str, Any] | None]] = Field(min_length=1)
    """As in any config; those that ``known`` does not name are explored."""
    format: FormatConfig = React(describe_tools=False, tool_markers=True)
    model: ModelConfig = TinyModel(max_length=320, vocab_size=1024)
    known: Known | None = None
    """None explores all tools, with the model as it is."""
    policies: dict[str, PolicyConfig] = {}
    """Models that imagine, attempt or judge, by the names that these go by here."""
    imaginer: Annotated[SchemaImagination | ModelImagination, Field(discriminator="kind")] = SchemaImagination()
    actors: list[ActorConfig] = Field(
        default=[ActorConfig(force="call"), ActorConfig(temperature=1.0, force="call"), ActorConfig(policy=IMAGINED)],
        min_length=1,
    )
    """Attempt a query one after the other, until one has solved it."""
    judge: str | None = None
    """One of ``policies``, an endpoint, that reflects where no rule can tell; by default nobody does."""
    exploration: Exploration = Exploration()
    place: Placement | None = None
    """Workers on Ray that make the trials; this process does by default. The trials are the same."""
    learner: LearnerSettings | None = None
    """Ranks on Ray that fit the policy, all but the arm of tokens alone; None fits it in this process."""
    ray: Cluster = Cluster()
    exploitation: Exploitation = Exploitation()
    test: int = Field(default=15, gt=0)
    """Queries of each tool that are held out, and as many for validation."""
    max_tokens: int = Field(default=64, gt=0)
    """Of one reply to a held-out query."""
    ablations: list[Part] = []
    """Exploring is done again without each of these, and learned from."""
    batches: list[list[str]] = []
    """Tools in the order that they are learned in rounds, with rehearsal and without; none leaves that out."""

    @model_validator(mode="after")
    def _consistent(self) -> "SteConfig":
        known = set(self.known.tools) if self.known else set()
        if repeated := {tool for batch in self.batches for tool in batch} & known:
            raise ValueError(f"batches: {sorted(repeated)[0]!r} is known before; batches are of tools to explore")
        if problem := next(unshared(self.learner, self.ray, self.model, self._fits), ""):
            raise ValueError(problem)
        if self.place is not None and (needed := self.place.workers * self.place.cpus) > self.ray.num_cpus:
            raise ValueError(
                f"ray.num_cpus: {self.ray.num_cpus:g} are too few for {self.place.workers} workers of "
                f"{self.place.cpus:g}, {needed:g} in all; raise it, or lower place.workers"
            )
        asked = [self.judge] if self.judge else []
        asked += [self.imaginer.policy] if isinstance(self.imaginer, ModelImagination) else []
        for name in asked:
            if not isinstance(self.policies.get(name), EndpointConfig | VllmConfig):
                raise ValueError(f"{name!r} imagines or judges and is no endpoint among policies: {self._policies()}")
        for actor in self.actors:
            if actor.policy not in (LIVE, IMAGINED, *self.policies):
                raise ValueError(
                    f"actors: no policy {actor.policy!r}; there are {LIVE}, {IMAGINED}, {self._policies()}"
                )
        if isinstance(self.imaginer, ModelImagination) and self.judge is None and self.exploration.without.reflection:
            raise ValueError("what a model imagines has no known call, so that only a model can judge: name a judge")
        if isinstance(self.imaginer, ModelImagination) and {one.policy for one in self.actors} == {IMAGINED}:
            raise ValueError(
                "actors: what a model imagines means no known call, so that 'imagined' attempts nothing; name live, or "
                "one of policies"
            )
        nobody = isinstance(self.imaginer, ModelImagination) and {one.policy for one in self.actors} <= {LIVE, IMAGINED}
        if nobody and "documented" in self.exploitation.arms:
            raise ValueError(
                "exploitation.arms: documented takes the call that a query means, which a model that imagines does not "
                "say; name one of policies among the actors, or leave the arm out"
            )
        return self

    @property
    def _fits(self) -> dict[str, Fit]:
        """What ranks would learn, by section."""
        after = self.exploitation
        stages = {"exploitation.learning": after.learning, "exploitation.documented": after.documented}
        stages |= {"known.learning": self.known.learning if self.known else None, "exploitation.rounds": after.rounds}
        fits = {name: (one.batch_size, one.optimiser, one.objective) for name, one in stages.items() if one is not None}
        if "ranked" in after.arms:
            fits["exploitation.ranking"] = (after.learning.batch_size, after.learning.optimiser, after.ranking)
        return fits

    def _policies(self) -> str:
        return ", ".join(self.policies) or "none of its own"

    def client(self, name: str) -> EndpointClient:
        """What asks one of ``policies``, an endpoint.

        Raises:
            ConfigError: its key is not there.
        """
        policy = self.policies[name]
        assert isinstance(policy, EndpointConfig | VllmConfig)
        return EndpointClient(policy.endpoint())

    def catalog(self) -> Catalog:
        """All tools.

        Raises:
            ConfigError: ``known`` or ``batches`` name one that there is not, or none is left to explore.
        """
        catalog = load_catalog(self.tools)
        known = self.known.tools if self.known else []
        for name in (*known, *(tool for batch in self.batches for tool in batch)):
            if name not in catalog:
                raise ConfigError(f"there is no tool {name!r} among {', '.join(catalog.names)}")
        if set(catalog.names) <= set(known):
            raise ConfigError("every tool is known; leave some out of known.tools, to be explored")
        return catalog
