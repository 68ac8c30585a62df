"""The stages of STE, each of which leaves what it made in the run's folder, and makes nothing twice."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from executors.errors import DataError
from executors.executor import Executor
from rewards.selectivity import LIVE
from rl.data.examples import Encoder, Example
from rl.data.explored import imitated, in_context, ranked, read_general, renamed, under_names
from rl.data.rehearsal import rehearsed
from rl.data.retrieved import Demonstrations, ToolLists, with_demonstrations
from rl.data.room import fitting
from rl.evaluation.calls import call_ratios
from rl.evaluation.intervals import Ratio
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage
from rl.losses.objective import Objective
from rl.models.choice import HuggingFaceModel
from rl.models.load import build_tokenizer_for, build_weights, is_adapter, load_tokenizer
from rl.models.sentences import SentenceEncoder
from rl.progress import Progress
from rl.recipes.fitting import Fitter
from rl.recipes.joined import Joined
from rl.recipes.ste_config import Learning, SteConfig
from rl.recipes.ste_exploring import Exploring, Found
from rl.run import Run, write_json
from rl.serving.policies import LocalPolicy
from rollouts.formats import Format
from rollouts.formats.react import ReactFormat
from rollouts.policy import Source
from rollouts.store import Log
from rollouts.types import Group, Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig


class Ste(Exploring):
    """The stages of a run: what it learns of what it explored, and how well; what is on disk is not made again."""

    def __init__(self, config: SteConfig, run: Run, progress: Progress, cluster: Joined) -> None:
        """See ``Exploring``."""
        super().__init__(config, run, progress, cluster)
        self._fitter = Fitter(config.learner, cluster, run, progress)
        if not torch.cuda.is_available():
            torch.set_num_threads(1)

    def edition(self, name: str, found: Found, learning: Learning | None = None) -> str:
        """What a state that is learned from something is called on disk: numbered from the second time that more was
        found, or that it is learned in another way of its own, so that what was learned before stays as it is.
        """
        path = self.run.path / "editions.json"
        known: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}
        told = repr([(task.id, task.prompt, one.id) for task, one in (*found.examples, *found.rejected)])
        told += learning.model_dump_json() if learning else ""
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        if digest not in known.setdefault(name, []):
            known[name].append(digest)
            write_json(path, known)
        place = known[name].index(digest)
        return f"{name}-{place + 1}" if place else name

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
        whole = Encoder(load_tokenizer(start), self.format, self.specs, max_tokens=sys.maxsize)
        taught = fitting(whole.examples(alone), self.config.model.max_length, "demonstrations of known tools")
        examples = taught + self._encoder(start, shown).examples(behind)
        return self._fit(start, "base", examples, learning, learning.objective)

    def demonstrated(self, found: Found | None = None) -> Demonstrations:
        """What a prompt's demonstrations are chosen from: those of known tools, and what exploring has solved."""
        path = self.config.exploitation.in_context.encoder
        solved = [*self.demonstrations, *(found.solved if found else ())]
        return Demonstrations(solved, encode=SentenceEncoder(Path(path)) if path else None)

    def fine_tuned(self, base: Path, found: Found, name: str = "ft", learning: Learning | None = None) -> Path:
        """What was found imitated, with what was known before rehearsed."""
        groups = imitated(found.examples, self.format, self.specs, responses=self.config.exploitation.responses)
        learning = learning or self.config.exploitation.learning
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
        learner = self.config.learner
        gpu = learner is not None and learner.gpu and torch.cuda.is_available()
        policy = LocalPolicy(LIVE, str(path), gpu=gpu)
        worker = RolloutWorker(
            WorkerConfig(policies={LIVE: policy}, executor=self._executor, format=format, max_turns=1)
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
        adapter = self.config.model.adapter
        job = AloneJob(
            start=str(start),
            folder=str(self.run.folder("checkpoints") / name),
            examples=tuple(examples),
            stage=stage,
            batch_size=learning.batch_size,
            seed=self.config.seed,
            quantised=adapter is not None and adapter.kind == "qlora",
            rows=rows,
        )
        return Path((fit_alone(job) if rows else self._fitter.fit(job)).path)


def ratios(groups: Sequence[Group], tools: Sequence[str] | None = None) -> dict[str, Ratio]:
    """Well-formed, API match and correct, extra arguments refused, over all queries or those of some tools."""
    chosen = [group for group in groups if tools is None or group.task.labels["tool"] in tools]
    return call_ratios(chosen, LIVE, "reject")


def by_tool(groups: Sequence[Group], tools: Sequence[str]) -> Mapping[str, float]:
    """The share of correct calls of each tool."""
    found = {tool: ratios(groups, [tool])["correct"].arrays() for tool in tools}
    return {tool: float(parts.sum() / max(wholes.sum(), 1)) for tool, (parts, wholes) in found.items()}
