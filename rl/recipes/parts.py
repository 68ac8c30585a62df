"""The parts of a config that recipes share."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rewards.ranking import GOLD, Ranking, Recorded, WeightedSum
from rewards.selectivity import LIVE
from rl.config import Strict
from rl.data.formats import FormatConfig, Inline
from rl.data.tasks.arithmetic import Arithmetic
from rl.data.tasks.conversions import Conversions
from rl.data.tasks.facts import Facts
from rl.data.tasks.gsm8k import Gsm8k
from rl.data.tasks.gsm8k_pool import Gsm8kPool
from rl.data.tasks.jsonl import JsonLines
from rl.data.tasks.math_words import MathWords
from rl.data.tasks.mixture import Mixture
from rl.data.tasks.own import OwnFile
from rl.data.tasks.ranked import RankedFile
from rl.data.tasks.ste_pool import StePool
from rl.data.tasks.trice import TriceFiles
from rl.evaluation.evaluate import Measure, Selectivity
from rl.improvement import Improvement
from rl.learner.footprint import Footprint, Packing, Precision, Strategy
from rl.models.choice import ModelConfig, TinyModel
from rl.recipes.cloning import Cloning, OwnAnswers
from rl.recipes.learnable import unlearnable
from rl.recipes.searching import SearchConfig
from rl.serving.sources import PolicyConfig
from rollouts.policy import Source
from rollouts.search import Searching
from rollouts.types import Force, Sampling

TasksConfig = Annotated[
    Arithmetic
    | Facts
    | Conversions
    | Mixture
    | JsonLines
    | OwnFile
    | TriceFiles
    | Gsm8k
    | MathWords
    | StePool
    | Gsm8kPool
    | RankedFile,
    Field(discriminator="kind"),
]


class Peer(Strict):
    """Another model, cloned beside the policy from its own random weights and its own annotator's demonstrations."""

    seed: int
    """Added to the run's seed."""
    steps: int | None = Field(default=None, gt=0)
    """Of its cloning; as many as the policy's, its foundation's among them, by default."""


class SourceConfig(Strict):
    """One way of attempting a task."""

    name: str
    policy: str
    """``live`` (being trained), ``gold`` (the expected attempt), a peer, one of ``policies``, or a recording of the
    benchmark."""
    count: int = Field(default=1, gt=0)
    """Attempts at each task."""
    force: Force | None = None
    """Make the first reply begin with a call, or with an answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_tokens: int = Field(default=48, gt=0)
    """Of one reply."""
    adapter: str = ""
    """Which of the policy's ``adapters`` writes; empty for the model as it is."""
    shots: int = Field(default=0, ge=0)
    """Solved examples before each question, every call of theirs made; for one of ``policies`` that reads text."""

    def build(self) -> Source:
        sampling = Sampling(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=self.max_tokens
        )
        return Source(
            name=self.name,
            policy=self.policy,
            count=self.count,
            sampling=sampling,
            force=self.force,
            adapter=self.adapter,
        )


class Cut(Strict):
    """When a round goes on without the episodes that take far longer than the others; they are kept and counted."""

    share: float = Field(default=0.9, gt=0, lt=1)
    """Of the round's groups that must have come before any is cut."""
    factor: float = Field(default=4.0, gt=1)
    """A group is cut once it takes this many times as long as the median one."""
    seconds: float = Field(default=30.0, gt=0)
    """And at least this long."""


class Rollouts(Strict):
    """How tasks are played."""

    workers: int = Field(default=1, gt=0)
    """Processes, each with every local policy; one thread each on a CPU."""
    gpus: float = Field(default=0, ge=0)
    """Of each worker."""
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom resources of Ray that each worker takes, such as ``{rollout_node: 1}``."""
    cut: Cut | None = None
    """What becomes of stragglers; all are waited for by default."""
    max_turns: int = Field(default=3, gt=0)
    """Calls of one episode at most; of a search, of one way."""
    search: SearchConfig | None = None
    """Whether policies that sample search for an answer, in training and in evaluation; by default each attempt is one
    way. Recorded and gold attempts are what they are."""
    tool_timeout: float = Field(default=10.0, gt=0)
    """Seconds that a call may take."""
    timeout: float = Field(default=900.0, gt=0)
    """Seconds that a worker may take for its share of a round before it is taken for dead."""
    journal: bool = True
    """Whether workers write down what calls gave, so that none is made again after a crash."""

    @property
    def searching(self) -> Searching | None:
        """How far an attempt searches."""
        return None if self.search is None else self.search.build(self.max_turns)

    @property
    def replies(self) -> int:
        """Replies of one attempt at most."""
        return self.max_turns if self.search is None else self.search.replies(self.max_turns)


class ExecutorPoolConfig(Strict):
    """Processes apart from the rollout workers that run some of the tools, where what these need is."""

    tools: list[str] = Field(min_length=1)
    """By name; those that share a state go together."""
    count: int = Field(default=1, gt=0)
    """Processes."""
    cpus: float = Field(default=1, ge=0)
    """Of each."""
    gpus: float = Field(default=0, ge=0)
    """Of each."""
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom resources of Ray that each takes, such as ``{sandbox_node: 1}``."""
    calls: int = Field(default=64, gt=0)
    """Under way at once in one process; further ones wait for their turn."""
    sessions: int = Field(default=256, gt=0)
    """Episodes whose states one process holds at once."""
    wait: float = Field(default=120.0, gt=0)
    """Seconds that a call may wait for its turn, or for a process to come back."""


class Executors(Strict):
    """Where tools run: in the rollout workers, unless a pool names them."""

    pools: dict[str, ExecutorPoolConfig] = {}
    """By name."""

    @property
    def cpus(self) -> float:
        """That all pools take."""
        return sum(pool.count * pool.cpus for pool in self.pools.values())

    @property
    def gpus(self) -> float:
        """That all pools take."""
        return sum(pool.count * pool.gpus for pool in self.pools.values())

    @model_validator(mode="after")
    def _each_tool_in_one(self) -> "Executors":
        homes: dict[str, str] = {}
        for name, pool in self.pools.items():
            for tool in pool.tools:
                if homes.setdefault(tool, name) != name:
                    raise ValueError(f"pools: {homes[tool]!r} and {name!r} both run {tool!r}; name it in one")
        return self


class LearnerSettings(Strict):
    """Where the learner runs."""

    workers: int = Field(default=1, gt=0)
    """Ranks that share each step."""
    min_workers: int | None = Field(default=None, gt=0)
    """Ranks that will do while the cluster has no room for more; it then grows to ``workers`` by itself. Ray counts the
    room by what nodes have, not by what is left of it: name in ``resources`` what only nodes of the learner have."""
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom resources of Ray that each rank takes, such as ``{learner_node: 1}``."""
    gpu: bool = False
    max_failures: int = Field(default=3, ge=-1)
    """Times that lost ranks are started again; -1 for as often as it takes."""
    strategy: Strategy = "ddp"
    """How the ranks hold the model between them; see ``Strategy``."""
    precision: Precision = "fp32"
    """What products are computed in; weights and sums stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, about a third more time."""
    keep: int = Field(default=3, gt=0)
    """Of the newest checkpoints, beside the first, the best, the last of each stage and those still to be judged."""
    packing: Packing = "auto"
    """``packed``: candidates of a group stand behind one prompt; ``padded``: each has its own; ``auto`` packs where the
    model reads packed rows as it reads others."""
    max_tokens: int | None = Field(default=None, ge=16)
    """Positions whose activations a rank keeps at once; a step may have more. Candidates that are longer are left out
    and counted. By default what 2 GiB hold, on a GPU half of what the weights leave; then none is left out."""

    @property
    def footprint(self) -> Footprint:
        """What the model takes while it learns."""
        return Footprint(
            strategy=self.strategy, precision=self.precision, gradient_checkpointing=self.gradient_checkpointing
        )

    @model_validator(mode="after")
    def _not_too_few(self) -> "LearnerSettings":
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers: {self.min_workers} is more than workers, which is {self.workers}")
        return self


class Cluster(Strict):
    """The Ray cluster that a local run starts for itself; unused where one is connected to."""

    num_cpus: int = Field(default=8, gt=0)
    """What Ray may hand out: bookkeeping, not a limit on the machine's cores."""
    object_store_mib: int = Field(default=256, ge=80)
    dashboard: bool = True


class Baselines(Strict):
    """What the improved policy is compared with, besides the policy that it started from."""

    continued_cloning_steps: int = Field(default=0, ge=0)
    """Further steps of behaviour cloning from the same start; 0 leaves the baseline out."""


class RecipeConfig(Strict):
    """What every recipe's config has: a whole run, what is learned, from what, by what means."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the run; its folder is ``storage/name`` unless ``--run-dir`` says otherwise."""
    seed: int = Field(default=0, ge=0)
    storage: str = "runs"
    """Where runs are kept; on a cluster, a path that every node sees."""
    tasks: TasksConfig = Arithmetic()
    format: FormatConfig = Inline()
    model: ModelConfig = TinyModel()
    cloning: Cloning
    stages: list[Literal["clone", "improve"]] = ["clone", "improve"]
    """What is done: both stages, one of them, or none, to measure the policy as it is. A foundation is always laid."""
    few_shot: int = Field(default=0, ge=0)
    """Solved examples that stand before every question; only where nothing is trained."""
    peers: dict[str, Peer] = {}
    policies: dict[str, PolicyConfig] = {}
    """Further models that sources play: behind endpoints, in vLLM, from directories; and a random agent."""
    sources: list[SourceConfig]
    rewards: Ranking = WeightedSum()
    improvement: Improvement
    evaluation: Measure = Selectivity()
    baselines: Baselines = Baselines()
    rollouts: Rollouts = Rollouts()
    executor: Executors = Executors()
    learner: LearnerSettings = LearnerSettings()
    ray: Cluster = Cluster()

    @model_validator(mode="before")
    @classmethod
    def _template_of_the_model(cls, content: Any) -> Any:
        """The chat format takes the template of the model that is trained, unless it names another tokenizer."""
        if not isinstance(content, Mapping):
            return content
        format, model = content.get("format"), content.get("model")
        if not isinstance(format, Mapping) or not isinstance(model, Mapping) or format.get("kind") != "chat":
            return content
        return {**content, "format": {"tokenizer": model.get("path", ""), **format}}

    @model_validator(mode="after")
    def _consistent(self) -> "RecipeConfig":
        if found := list(self._contradictions()):
            raise ValueError("\n".join(found))
        return self

    def _contradictions(self) -> Iterator[str]:
        """What of the config cannot be together."""
        names = [source.name for source in self.sources]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"sources: two are named {name!r}; a source's name is its own"
        if not self.sources:
            yield "sources: there is none; name at least one way of attempting a task"
        yield from self._names()
        yield from self._unread_shots()
        smallest = min(self.cloning.batch_size, self.improvement.batch_size)
        if smallest < self.learner.workers:
            yield f"learner.workers: {self.learner.workers} ranks cannot share a batch of {smallest}"
        yield from self._stages()
        yield from self._unlearnable()
        if isinstance(self.rewards, Recorded):
            yield from self._unrecorded()
        beside = max(len(self.peers), int(self.baselines.continued_cloning_steps > 0))
        placed = [place for one in self.policies.values() if (place := getattr(one, "place", None)) is not None]
        apart = math.ceil(self.executor.cpus + sum(place.workers * place.cpus for place in placed))
        if (needed := self.learner.workers + self.rollouts.workers + beside + apart) > self.ray.num_cpus:
            yield (
                f"ray.num_cpus: {self.ray.num_cpus} are too few for {self.learner.workers} ranks, "
                f"{self.rollouts.workers} rollout workers, {beside} fits beside them and {apart} for executor pools "
                f"and placed policies; {needed} will do, whatever the machine's cores"
            )

    @property
    def offset(self) -> int:
        """The step at which stage 2 begins, or would."""
        return self.cloning.base_step + (self.cloning.steps if "clone" in self.stages else 0)

    @property
    def _teacher(self) -> str | None:
        """The policy that writes the calls of stage 1, where one is asked."""
        demonstrator = self.cloning.demonstrator
        return demonstrator.teacher if isinstance(demonstrator, OwnAnswers) and "clone" in self.stages else None

    def _names(self) -> Iterator[str]:
        """Names that are taken twice, that nothing reads, or that there are not."""
        for name in sorted(self.peers.keys() & {LIVE, GOLD}):
            yield f"peers: {name!r} is the name of a built-in policy; call the peer otherwise"
        for name in sorted(self.policies.keys() & {LIVE, GOLD, *self.peers}):
            yield f"policies: {name!r} is the name of another policy; call this one otherwise"
        played = {source.policy for source in self.sources}
        for name in sorted(self.policies.keys() - played - {self._teacher}):
            yield f"policies: no source plays {name!r}; add one, or leave the policy out"
        for name in sorted(self.peers.keys() - played):
            yield f"peers: no source plays {name!r}; add one, or leave the peer out"
        for source in self.sources:
            known = getattr(self.policies.get(source.policy), "adapters", {})
            if source.adapter and source.adapter not in known:
                there = ", ".join(known) or "none"
                yield (
                    f"sources: {source.name!r} asks policy {source.policy!r} for its adapter {source.adapter!r}, and "
                    f"it has {there}; name it under policies.{source.policy}.adapters"
                )

    def _unread_shots(self) -> Iterator[str]:
        """Sources whose policy would not read the examples that they put before a question."""
        for source in (one for one in self.sources if one.shots):
            policy = self.policies.get(source.policy)
            if policy is None:
                yield f"sources: {source.name!r} has shots, which only one of policies reads; leave them out"
            elif getattr(policy, "mode", "text") == "tools":
                yield f"policies.{source.policy}: shots are text, and mode 'tools' sends messages; set mode: text"

    def _stages(self) -> Iterator[str]:
        """Stages that do not go together."""
        if self.stages not in ([], ["clone"], ["improve"], ["clone", "improve"]):
            yield f"stages: clone comes before improve, and each once; got {self.stages}"
        if self.few_shot and self.stages:
            yield "few_shot: examples stand before questions where nothing is trained; set stages: []"
        known = {LIVE, GOLD, *self.policies}
        if self._teacher is not None and self._teacher not in known:
            there = ", ".join(sorted(known))
            yield f"cloning.demonstrator.teacher: there is no policy {self._teacher!r}; there are {there}"

    def _unlearnable(self) -> Iterator[str]:
        """What the stages ask and the strategy cannot do."""
        found: list[str] = []
        for name, stage in (("cloning", self.cloning), ("improvement", self.improvement)):
            found += unlearnable(
                self.learner.strategy, self.learner.gpu, self.model, name, stage.optimiser, stage.objective
            )
        yield from dict.fromkeys(found)

    def _unrecorded(self) -> Iterator[str]:
        """Attempts without a recorded reward."""
        if not isinstance(self.tasks, RankedFile):
            yield f"rewards: recorded takes the rewards of tasks of kind 'ranked', not {self.tasks.kind!r}"
        for source in self.sources:
            if source.policy in {LIVE, *self.peers, *self.policies}:
                yield (
                    f"rewards: source {source.name!r} plays {source.policy!r}, whose attempts have no recorded reward; "
                    "leave it out, or choose another ranking"
                )


class TriceConfig(RecipeConfig):
    """A TRICE run."""

    recipe: Literal["trice"] = "trice"
