"""STE: explore tools by trial, error and memory, then learn them for good (Wang et al., 2024).

A policy that was taught some tools meets others. It explores them: queries are imagined from their documentation, it
attempts them, the calls are really run, and what they give is remembered. Attempts that solved their query, and
paraphrases of these, are imitated, ranked above those that failed, or shown as demonstrations.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from executors.catalog import Catalog
from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.named import load_catalog
from rewards.selectivity import LIVE
from rl.config import Strict
from rl.data.examples import Encoder, Example
from rl.data.explored import imitated, in_context, ranked, read_general, solved_of
from rl.data.formats import FormatConfig, React
from rl.data.paraphrase import Solved, paraphrase
from rl.data.rehearsal import rehearsed
from rl.data.retrieved import Demonstrations, with_demonstrations
from rl.evaluation.calls import call_ratios
from rl.evaluation.intervals import Ratio
from rl.explore import IMAGINED, Actor, Exploration, Explorer, judged_trials
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage
from rl.learner.optimiser import OptimiserConfig
from rl.losses.objective import Objective, Rrhf, Sft
from rl.models.load import ModelConfig, TinyModel, build_tokenizer_for, build_weights, load_tokenizer
from rl.run import Run, write_json
from rl.serving.policies import GoldPolicy, LocalPolicy
from rollouts.formats import Format
from rollouts.imagine import SchemaImaginer
from rollouts.memory import Trial
from rollouts.policy import Source
from rollouts.store import Log
from rollouts.types import Group, Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig

_DEMONSTRATED, _EXPLORED, _TESTED = 1000, 0, 2000
"""Added to the seed of what is imagined for each."""


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
    learning: Learning = Learning()


class Exploitation(Strict):
    """How what was found is learned."""

    target: int = Field(default=60, gt=0)
    """Examples of each tool, paraphrases included."""
    most: int | None = Field(default=6, gt=0)
    """Of one query and its paraphrases."""
    responses: bool = False
    """Whether the answer after the call is learned too."""
    rehearsal: float = Field(default=0.3, ge=0, le=1)
    """Share of what was learned before that is read again."""
    general: str | None = None
    """A file of general dialogues that are mixed in, in STE's form."""
    learning: Learning = Learning()
    ranking: Objective = Rrhf()
    """Of the arm that learns by rank."""
    shown: int = Field(default=2, gt=0)
    """Demonstrations of one prompt, of the arm that learns in context."""


class SteConfig(Strict):
    """A run of STE."""

    recipe: Literal["ste"] = "ste"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0)
    storage: str = "runs"
    tools: list[str | dict[str, dict[str, Any] | None]] = Field(min_length=1)
    """As in any config; those that ``known`` does not name are explored."""
    format: FormatConfig = React(describe_tools=False, tool_markers=True)
    model: ModelConfig = TinyModel(max_length=320, vocab_size=1024)
    known: Known
    exploration: Exploration = Exploration()
    temperatures: list[float] = [0.0, 1.0]
    """Of the policy's attempts at a query, one after the other; then the meant call is made for it."""
    exploitation: Exploitation = Exploitation()
    test: int = Field(default=15, gt=0)
    """Queries of each tool that are held out."""
    batches: list[list[str]] = []
    """Tools in the order that they are learned in rounds; none leaves continual learning out."""

    @model_validator(mode="after")
    def _consistent(self) -> "SteConfig":
        if repeated := {tool for batch in self.batches for tool in batch} & set(self.known.tools):
            raise ValueError(f"batches: {sorted(repeated)[0]!r} is known before; batches are of tools to explore")
        return self

    def catalog(self) -> Catalog:
        """All tools.

        Raises:
            ConfigError: ``known`` or ``batches`` name one that there is not, or none is left to explore.
        """
        catalog = load_catalog(self.tools)
        for name in (*self.known.tools, *(tool for batch in self.batches for tool in batch)):
            if name not in catalog:
                raise ConfigError(f"there is no tool {name!r} among {', '.join(catalog.names)}")
        if set(catalog.names) <= set(self.known.tools):
            raise ConfigError("every tool is known; leave some out of known.tools, to be explored")
        return catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one exploration came to."""

    trials: Sequence[Trial]
    solved: Sequence[Solved]
    rejected: Sequence[Solved]
    examples: Sequence[Solved]
    """Solved queries and their paraphrases, to the target of each tool."""


class Ste:
    """The stages of a run; what is on disk is not made again."""

    def __init__(self, config: SteConfig, run: Run) -> None:
        self.config = config
        self.run = run
        self.catalog = config.catalog()
        self.specs = {spec.name: spec for spec in self.catalog.specs()}
        self.known = tuple(config.known.tools)
        self.unknown = tuple(name for name in self.catalog.names if name not in self.known)
        self.format = config.format.build()
        self.demonstrations = self._imagined("demonstrations", self.known, config.known.demonstrations, _DEMONSTRATED)
        if not torch.cuda.is_available():
            torch.set_num_threads(1)

    def base(self) -> Path:
        """The policy that knows some tools, and how to use demonstrations."""
        learning = self.config.known.learning
        folder = self.run.path / "base"
        start = folder / "step-0"
        if not checkpoint.is_complete(start):
            markers = self.format.markers(self.catalog.specs())
            tokenizer = build_tokenizer_for(self.config.model, self._texts(), markers)
            checkpoint.begin(folder, build_weights(self.config.model, tokenizer, self.config.seed), tokenizer)
        groups = imitated(self.demonstrations, self.format, self.specs)
        alone, behind = in_context(groups, self.config.known.in_context, self.config.seed)
        shown = with_demonstrations(self.format, Demonstrations(self.demonstrations), self.config.exploitation.shown)
        examples = self._encoder(start).examples(alone) + self._encoder(start, shown).examples(behind)
        return self._fit(start, "base", examples, learning, learning.objective)

    def explore(self, base: Path, setting: Exploration | None = None, name: str = "explored") -> Found:
        """Explore what is not known, filter, and paraphrase to the target."""
        setting = setting or self.config.exploration
        policy = LocalPolicy(LIVE, str(base))()
        actors = [
            Actor(
                source=Source(name=f"{LIVE}-{place}", policy=LIVE, sampling=_sampling(heat), force="call"),
                policy=policy,
            )
            for place, heat in enumerate(self.config.temperatures)
        ]
        trials = self._explored(name, self.unknown, setting, [*actors, self._imaginary()], _EXPLORED)
        solved, rejected = judged_trials(trials)
        if not setting.without.execution:  # nobody can tell: what could be called was
            solved, rejected = [(trial.task, trial.attempts[-1]) for trial in trials], []
        return self._found(trials, solved, rejected)

    def tests(self) -> list[Task]:
        """Held-out queries of every tool; the prompt lists none, so any of them may be called."""
        seen = {task.prompt for task, _ in self.demonstrations}
        tested = self._imagined("test", self.catalog.names, self.config.test, _TESTED)
        return [replace(task, tools=self.catalog.names) for task, _ in tested if task.prompt not in seen]

    def fine_tuned(self, base: Path, found: Found, name: str = "ft") -> Path:
        """What was found imitated, with what was known before rehearsed."""
        groups = imitated(found.examples, self.format, self.specs, responses=self.config.exploitation.responses)
        learning = self.config.exploitation.learning
        return self._fit(base, name, self._with_rehearsal(base, groups), learning, learning.objective)

    def ranked(self, base: Path, found: Found, name: str = "ranked") -> Path:
        """The same examples, each above the attempts at its query that failed."""
        settings = self.config.exploitation
        groups = ranked(found.examples, found.rejected, self.format, self.specs, responses=settings.responses)
        return self._fit(base, name, self._with_rehearsal(base, groups), settings.learning, settings.ranking)

    def control(self, base: Path, name: str = "control") -> Path:
        """The same number of steps on the demonstrations alone."""
        learning = self.config.exploitation.learning
        examples = self._encoder(base).examples(imitated(self.demonstrations, self.format, self.specs))
        return self._fit(base, name, examples, learning, learning.objective)

    def rounds(self, base: Path, found: Found, ratio: float, name: str) -> list[Path]:
        """The policy after each batch of tools, each round beginning where the last one ended."""
        learning = self.config.exploitation.learning
        paths, past, policy = [], [self.demonstrations], base
        for number, batch in enumerate(self.config.batches):
            new = [(task, attempt) for task, attempt in found.examples if task.labels["tool"] in batch]
            chosen = rehearsed(new, past, ratio=ratio, seed=self.config.seed)
            examples = self._encoder(policy).examples(imitated(chosen, self.format, self.specs))
            if examples:  # a batch of which nothing was solved leaves the policy as it is
                policy = self._fit(policy, f"{name}-{number}", examples, learning, learning.objective)
            paths.append(policy)
            past.append(new)
        return paths

    def evaluate(
        self, path: Path, tasks: Sequence[Task], name: str, shown: Demonstrations | None = None
    ) -> list[Group]:
        """Greedy attempts at held-out queries, kept in ``evaluation/``; with demonstrations before each, if any."""
        log: Log[Group] = Log(self.run.folder("evaluation") / f"{name}.jsonl", Group)
        if len(known := list(log.read())) == len(tasks):
            return known
        log.path.unlink(missing_ok=True)
        count = self.config.exploitation.shown
        format = self.format if shown is None else with_demonstrations(self.format, shown, count)
        worker = RolloutWorker(
            WorkerConfig(
                policies={LIVE: LocalPolicy(LIVE, str(path))}, executor=self._executor, format=format, max_turns=1
            )
        )
        source = Source(name=LIVE, policy=LIVE, sampling=_sampling(0.0))
        groups = asyncio.run(worker.play(tasks, [source], f"evaluation/{name}"))
        with log:
            log.append(groups)
        return groups

    def _with_rehearsal(self, base: Path, groups: Sequence[Any]) -> list[Example]:
        settings = self.config.exploitation
        old = imitated(self.demonstrations, self.format, self.specs)
        general = imitated(read_general(Path(settings.general)), self.format, self.specs) if settings.general else []
        mixed = rehearsed(groups, [old], ratio=settings.rehearsal, general=general, seed=self.config.seed)
        return self._encoder(base).examples(mixed)

    def _found(self, trials: Sequence[Trial], solved: Sequence[Solved], rejected: Sequence[Solved]) -> Found:
        settings = self.config.exploitation
        made = paraphrase(solved, self.specs, target=settings.target, most=settings.most, seed=self.config.seed)
        return Found(trials=trials, solved=solved, rejected=rejected, examples=made.examples)

    def _imagined(self, name: str, tools: Sequence[str], count: int, seed: int) -> list[Solved]:
        """Queries that were imagined and whose meant call really ran, so many of each tool."""
        sittings = Exploration(episodes=-(-count // 2), trials=4, max_turns=1, focus=0)
        solved = solved_of(self._explored(name, tools, sittings, [self._imaginary()], seed))
        taken = [pair for tool in tools for pair in [one for one in solved if one[0].labels["tool"] == tool][:count]]
        if not taken:
            raise DataError(f"no call that was imagined for {', '.join(tools)} ran; see {self.run.path / name}.jsonl")
        return taken

    def _explored(
        self, name: str, tools: Sequence[str], setting: Exploration, actors: Sequence[Actor], seed: int
    ) -> list[Trial]:
        log: Log[Trial] = Log(self.run.path / f"{name}.jsonl", Trial)
        with log:
            explorer = Explorer(
                setting,
                self.catalog,
                self.format,
                SchemaImaginer(errors=0.05),
                actors,
                log,
                seed=self.config.seed + seed,
                tools=tools,
            )
            trials = asyncio.run(explorer.explore())
        shares = {tool: round(one.share, 3) for tool, one in explorer.coverage().items()}
        write_json(self.run.path / f"{name}.coverage.json", shares)
        return trials

    def _imaginary(self) -> Actor:
        policy = GoldPolicy(IMAGINED, self.catalog, self.format)()
        return Actor(source=Source(name=IMAGINED, policy=IMAGINED), policy=policy)

    def _executor(self) -> Executor:
        return Executor(self.catalog)

    def _texts(self) -> Iterator[str]:
        for task, attempt in self.demonstrations:
            yield self.format.opening(task, ())
            yield attempt.text
        for spec in self.specs.values():  # documentation is there before anything is explored
            yield f"{spec.name} {spec.description} {json.dumps(dict(spec.parameters))}"

    def _encoder(self, path: Path, format: Format | None = None) -> Encoder:
        tokenizer = load_tokenizer(path)
        return Encoder(tokenizer, format or self.format, self.specs, max_tokens=self.config.model.max_length)

    def _fit(
        self, start: Path, name: str, examples: Sequence[Example], learning: Learning, objective: Objective
    ) -> Path:
        if not examples:
            raise DataError(f"{name}: there is nothing to learn from; explore more, or raise model.max_length")
        stage = Stage(name=name, objective=objective, optimiser=learning.optimiser, steps=learning.steps)
        job = AloneJob(
            start=str(start),
            folder=str(self.run.path / "checkpoints" / name),
            examples=tuple(examples),
            stage=stage,
            batch_size=learning.batch_size,
            seed=self.config.seed,
        )
        return Path(fit_alone(job).path)


def ratios(groups: Sequence[Group], tools: Sequence[str] | None = None) -> dict[str, Ratio]:
    """Well-formed, API match and correct, extra arguments refused, over all queries or those of some tools."""
    chosen = [group for group in groups if tools is None or group.task.labels["tool"] in tools]
    return call_ratios(chosen, LIVE, "reject")


def by_tool(groups: Sequence[Group], tools: Sequence[str]) -> Mapping[str, float]:
    """The share of correct calls of each tool."""
    found = {tool: ratios(groups, [tool])["correct"].arrays() for tool in tools}
    return {tool: float(parts.sum() / max(wholes.sum(), 1)) for tool, (parts, wholes) in found.items()}


def _sampling(temperature: float) -> Sampling:
    return Sampling(temperature=temperature, max_tokens=64)
