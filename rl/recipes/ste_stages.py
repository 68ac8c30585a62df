"""The stages of STE, each of which leaves what it made in the run's folder, and makes nothing twice."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from executors.endpoint import EndpointClient
from executors.errors import DataError
from executors.executor import Executor
from executors.journal import Journal, forget
from executors.types import ToolCall
from rewards.selectivity import LIVE
from rl.data.examples import Encoder, Example
from rl.data.explored import imitated, in_context, in_modes, ranked, read_general, renamed, solved_of, under_names
from rl.data.paraphrase import Solved, paraphrase
from rl.data.rehearsal import rehearsed
from rl.data.retrieved import Demonstrations, ToolLists, with_demonstrations
from rl.evaluation.calls import call_ratios
from rl.evaluation.intervals import Ratio
from rl.exploration import Exploration
from rl.explore import IMAGINED, ROUND, Actor, Explorer, judged_trials
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage
from rl.losses.objective import Objective
from rl.models.choice import HuggingFaceModel
from rl.models.load import build_tokenizer_for, build_weights, is_adapter, load_tokenizer
from rl.models.sentences import SentenceEncoder
from rl.recipes.ste_config import ActorConfig, Learning, SchemaImagination, SteConfig
from rl.run import Run, write_json
from rl.serving.endpoint import EndpointPolicy
from rl.serving.policies import GoldPolicy, LocalPolicy
from rl.serving.sources import EndpointConfig, VllmConfig
from rollouts.formats import Format
from rollouts.formats.react import ReactFormat
from rollouts.imagine import Imaginer, ModelImaginer, SchemaImaginer
from rollouts.memory import Trial
from rollouts.policy import Policy, Source
from rollouts.store import Log
from rollouts.types import Group, Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig

HeldOut = Literal["test", "validation"]
_DEMONSTRATED, _EXPLORED, _TESTED = 1000, 0, 2000
"""Added to the seed of what is imagined for each."""
_PARTS = {"test": (0.0, 0.1), "validation": (0.1, 0.2), "learned": (0.2, 1.0)}
"""Of all calls, those that may be meant in each: nothing that is tested was ever learned from or tuned on."""
_SITTING = 4
"""Queries that are imagined together."""
_EXTENDED = 4
"""Times that more is imagined where too few calls ran."""


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
        self.known = tuple(config.known.tools) if config.known else ()
        self.unknown = tuple(name for name in self.catalog.names if name not in self.known)
        self.format = in_modes(config.format.build()) if config.exploitation.modes else config.format.build()
        self._clients: dict[str, EndpointClient] = {}
        self.given_up: list[str] = []
        """Why sittings of the last exploring ended early."""
        self.unreached = False
        """Whether it was because a model could not be reached, rather than paid."""
        self.demonstrations: list[Solved] = []
        if config.known:
            count = config.known.demonstrations
            self.demonstrations = self._imagined("demonstrations", self.known, count, _DEMONSTRATED)
        if not torch.cuda.is_available():
            torch.set_num_threads(1)

    def base(self) -> Path:
        """The policy that explores: it knows some tools, and how to use demonstrations; or the model as it is."""
        folder = self.run.folder("checkpoints") / "base"
        start = folder / "step-0"
        if not checkpoint.is_complete(start):
            markers = self.format.markers(self.catalog.specs())
            tokenizer = build_tokenizer_for(self.config.model, self._texts(), markers)
            model, seed = self.config.model, self.config.seed
            path = Path(model.path) if isinstance(model, HuggingFaceModel) else None
            elsewhere = path if path is not None and not is_adapter(path) else None
            weights = build_weights(model, tokenizer, seed)
            checkpoint.begin(folder, weights, tokenizer, adapter=model.adapter, base=elsewhere, seed=seed)
        if self.config.known is None:
            return start
        learning = self.config.known.learning
        groups = imitated(self.demonstrations, self.format, self.specs)
        alone, behind = in_context(groups, self.config.known.in_context, self.config.seed)
        aliases = renamed(behind, self.unknown, self.config.known.renamed, self.config.seed)
        behind = under_names(behind, aliases, self.format, self.specs)
        count = self.config.exploitation.in_context.shown
        shown = with_demonstrations(self.format, self.demonstrated(), count, aliases)
        examples = self._encoder(start).examples(alone) + self._encoder(start, shown).examples(behind)
        return self._fit(start, "base", examples, learning, learning.objective)

    def demonstrated(self, found: "Found | None" = None) -> Demonstrations:
        """What a prompt's demonstrations are chosen from: those of known tools, and what exploring has solved."""
        path = self.config.exploitation.in_context.encoder
        solved = [*self.demonstrations, *(found.solved if found else ())]
        return Demonstrations(solved, encode=SentenceEncoder(Path(path)) if path else None)

    def explore(self, base: Path | None, setting: Exploration | None = None, name: str = "explored") -> Found:
        """Explore what is not known, filter, and paraphrase to the target.

        Args:
            base: the policy that actors called ``live`` are; None where there are none.
            setting: the config's by default.
            name: of the file of trials.
        """
        setting = setting or self.config.exploration
        policies: dict[str, Policy] = {}
        for actor in self.config.actors:
            if actor.policy not in policies:
                policies[actor.policy] = self._policy(actor.policy, base)
        actors = [_actor(place, one, policies[one.policy]) for place, one in enumerate(self.config.actors)]
        trials = self._explored(name, self.unknown, setting, actors, _EXPLORED, self._imaginer())
        solved, rejected = judged_trials(trials)
        if not setting.without.execution:  # nobody can tell: what could be called was
            last = [(trial.task, trial.attempts[-1]) for trial in trials if trial.attempts]
            solved, rejected = [pair for pair in last if any(isinstance(call, ToolCall) for call in pair[1].calls)], []
        return self._found(trials, solved, rejected)

    def tests(self, part: HeldOut = "test") -> list[Task]:
        """Held-out queries of every tool; the prompt lists none, so any of them may be called."""
        seen = {task.prompt for task, _ in self.demonstrations}
        tested = self._imagined(part, self.catalog.names, self.config.test, _TESTED)
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

    def tokens(self, base: Path, found: Found, name: str = "tokens") -> Path:
        """The new tools' own tokens alone, of a frozen model: tools as tokens, in the words of ToolkenGPT.

        Raises:
            DataError: the tokenizer has none for them; ``format.tool_markers`` gives it some.
        """
        settings = self.config.exploitation
        new = [self.specs[tool] for tool in self.unknown]
        markers = set(self.format.markers(new)) - set(self.format.markers(()))
        tokenizer = load_tokenizer(base)
        ids = tuple(tokenizer.get_vocab().get(marker, -1) for marker in sorted(markers))
        if not ids or -1 in ids:
            raise DataError("the tokenizer has no tokens for the tools; a tiny model gets them by format.tool_markers")
        chosen = {"kind": "adamw", "lr": settings.tokens_lr, "weight_decay": 0.0}
        optimiser = settings.learning.optimiser.model_copy(update=chosen)
        learning = settings.learning.model_copy(update={"optimiser": optimiser})
        examples = self._encoder(base).examples(imitated(found.examples, self.format, self.specs))
        return self._fit(base, name, examples, learning, learning.objective, ids)

    def control(self, base: Path, name: str = "control") -> Path:
        """The same number of steps on the demonstrations alone."""
        learning = self.config.exploitation.learning
        examples = self._encoder(base).examples(imitated(self.demonstrations, self.format, self.specs))
        return self._fit(base, name, examples, learning, learning.objective)

    def rounds(self, base: Path, found: Found, ratio: float, name: str) -> list[Path]:
        """The policy after each batch of tools, each round beginning where the last one ended."""
        learning = self.config.exploitation.rounds or self.config.exploitation.learning
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
        format, tasks = (self.format, tasks) if shown is None else self._prompted(shown, tasks)
        worker = RolloutWorker(
            WorkerConfig(
                policies={LIVE: LocalPolicy(LIVE, str(path))}, executor=self._executor, format=format, max_turns=1
            )
        )
        source = Source(name=LIVE, policy=LIVE, sampling=Sampling(max_tokens=self.config.max_tokens))
        groups = asyncio.run(worker.play(tasks, [source], f"evaluation/{name}"))
        with log:
            log.append(groups)
        return groups

    def _prompted(self, shown: Demonstrations, tasks: Sequence[Task]) -> tuple[Format, Sequence[Task]]:
        """How the arm that learns in context is asked: behind demonstrations, and with the tools that are listed."""
        settings = self.config.exploitation.in_context
        format = self.format
        if settings.tools is not None:
            lists = ToolLists(self.catalog.specs())
            names = [lists.names(task, settings.tools, settings.listed, seed=self.config.seed) for task in tasks]
            tasks = [replace(task, tools=chosen) for task, chosen in zip(tasks, names, strict=True)]
            if isinstance(format, ReactFormat):
                format = ReactFormat(parser=format.parser, ground=format.ground, describe_tools=True)
        return with_demonstrations(format, shown, settings.shown), tasks

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
        by_tool: dict[str, list[Solved]] = {tool: [] for tool in tools}
        for extended in range(_EXTENDED):
            lacking = [tool for tool, solved in by_tool.items() if len(solved) < count]
            sittings = Exploration(
                episodes=-(-count // _SITTING) * (1 + extended), trials=_SITTING, max_turns=1, focus=0
            )
            trials = self._explored(name, lacking, sittings, [self._imaginary()], seed) if lacking else []
            for tool in lacking:
                by_tool[tool] = solved_of(trial for trial in trials if trial.tool == tool)[:count]
        taken = [pair for solved in by_tool.values() for pair in solved]
        if not taken:
            raise DataError(f"no call that was imagined for {', '.join(tools)} ran; see {self.run.path / name}.jsonl")
        return taken

    def _explored(
        self,
        name: str,
        tools: Sequence[str],
        setting: Exploration,
        actors: Sequence[Actor],
        seed: int,
        imaginer: Imaginer | None = None,
    ) -> list[Trial]:
        log: Log[Trial] = Log(self.run.path / f"{name}.jsonl", Trial)
        journal = Journal(self.run.path / "calls" / name) if imaginer else None
        judge = self._client(self.config.judge) if self.config.judge and imaginer else None
        with log:
            explorer = Explorer(
                setting,
                self.catalog,
                self.format,
                imaginer or SchemaImaginer(calls=_PARTS.get(name, _PARTS["learned"])),
                actors,
                log,
                judge=judge,
                seed=self.config.seed + seed,
                tools=tools,
                journal=journal,
            )
            trials = asyncio.run(self._to_its_end(explorer))
        if imaginer:
            shares = {tool: round(one.share, 3) for tool, one in explorer.coverage().items()}
            write_json(self.run.path / f"{name}.coverage.json", shares)
        self.given_up = [*explorer.unpaid, *explorer.unreached]
        self.unreached = bool(explorer.unreached)
        if not self.given_up and journal is not None:  # every call is in the log of trials now
            journal.close()
            forget(journal.path, ROUND)
        return trials

    async def _to_its_end(self, explorer: Explorer) -> list[Trial]:
        """Explore, and close the connections of this event loop."""
        try:
            return await explorer.explore()
        finally:
            for client in self._clients.values():
                await client.close()

    def _client(self, name: str) -> EndpointClient:
        """What asks an endpoint, for whatever it is asked: one client keeps one budget."""
        if name not in self._clients:
            self._clients[name] = self.config.client(name)
        return self._clients[name]

    def _imaginer(self) -> Imaginer:
        chosen = self.config.imaginer
        if isinstance(chosen, SchemaImagination):
            return SchemaImaginer(max_similarity=chosen.max_similarity, errors=chosen.errors, calls=_PARTS["learned"])
        return ModelImaginer(
            self._client(chosen.policy),
            temperature=chosen.temperature,
            max_tokens=chosen.max_tokens,
            max_similarity=chosen.max_similarity,
        )

    def _policy(self, name: str, base: Path | None) -> Policy:
        if name == IMAGINED:
            return self._imaginary().policy
        if name == LIVE:
            assert base is not None
            return LocalPolicy(LIVE, str(base))()
        config = self.config.policies[name]
        if isinstance(config, EndpointConfig | VllmConfig):
            own = {"mode": config.mode, "system": config.system, "logprobs": config.logprobs}
            return EndpointPolicy(name, self._client(name), self.format, self.catalog, **own)
        return config.build(name, self.format, self.catalog)()

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
        self,
        start: Path,
        name: str,
        examples: Sequence[Example],
        learning: Learning,
        objective: Objective,
        rows: tuple[int, ...] = (),
    ) -> Path:
        if not examples:
            raise DataError(f"{name}: there is nothing to learn from; explore more, or raise model.max_length")
        stage = Stage(name=name, objective=objective, optimiser=learning.optimiser, steps=learning.steps)
        job = AloneJob(
            start=str(start),
            folder=str(self.run.folder("checkpoints") / name),
            examples=tuple(examples),
            stage=stage,
            batch_size=learning.batch_size,
            seed=self.config.seed,
            rows=rows,
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


def _actor(place: int, config: ActorConfig, policy: Policy) -> Actor:
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens)
    name = IMAGINED if config.policy == IMAGINED else f"{config.policy}-{place}"
    return Actor(source=Source(name=name, policy=config.policy, sampling=sampling, force=config.force), policy=policy)
