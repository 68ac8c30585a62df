"""What an STE run explores, with whom, and what came of it; what is on disk is not made again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from executors.cache import canonical
from executors.cassette import call_row
from executors.endpoint import EndpointClient
from executors.errors import DataError
from executors.journal import Journal, await_writers, forget
from executors.types import MalformedCall, ToolCall
from rl.data.explored import in_modes, solved_of
from rl.data.paraphrase import Solved, paraphrase
from rl.exploration import Ablations, Exploration
from rl.explore import Explorer, judged_trials
from rl.progress import Progress
from rl.recipes.joined import Joined
from rl.recipes.ste_config import LIVE, ActorConfig, SchemaImagination, SteConfig
from rl.review import Review, Reviewer
from rl.run import Run, write_json
from rl.serving.endpoint import EndpointPolicy
from rl.serving.policies import GoldPolicy, LocalPolicy
from rl.serving.sources import EndpointConfig, VllmConfig
from rl.trials.remote import TrialPool
from rl.trials.worker import IMAGINED, ROUND, Actor, Make, TrialConfig
from rollouts.imagine import Imaginer, ModelImaginer, SchemaImaginer
from rollouts.memory import Trial
from rollouts.policy import Policy, Source
from rollouts.store import Log
from rollouts.types import Sampling, Task

T = TypeVar("T")
HeldOut = Literal["test", "validation"]
_DEMONSTRATED, _EXPLORED, _TESTED, _READ = 1000, 0, 2000, 3000
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
    reviews: Sequence[Review] = ()
    """What a judge found afterwards."""


class Exploring:
    """The tools of a run, and those who imagine, attempt and judge."""

    def __init__(self, config: SteConfig, run: Run, progress: Progress, cluster: Joined) -> None:
        """
        Args:
            config: of the run.
            run: keeps everything.
            progress: what the user sees.
            cluster: for workers and ranks, where the config asks for them.
        """
        self.config = config
        self.run = run
        self.progress = progress
        self.cluster = cluster
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

    def explore(self, base: Path | None, setting: Exploration | None = None, name: str = "explored") -> Found:
        """Explore what is not known, filter, and paraphrase to the target.

        Args:
            base: the policy that actors called ``live`` are; None where there are none.
            setting: the config's by default.
            name: of the file of trials.
        """
        setting = setting or self.config.exploration
        trials = self._explored(name, self.unknown, setting, self._actors(base), _EXPLORED, self._imaginer())
        if not setting.without.execution:
            return self._unverified(trials)
        reviews = [] if setting.without.reflection else self._reviewed(name, setting, trials)
        passed = {review.attempt: review.passed for review in reviews if review.passed is not None}
        solved, rejected = judged_trials(trials, passed)
        return self._found(trials, solved, rejected, reviews)

    def read(self) -> Found:
        """What documentation alone gives: as many queries as exploring has, with the calls that they mean; no call is
        run, no policy of our own tries, nobody judges.
        """
        blind = Ablations(execution=False, reflection=False)
        setting = self.config.exploration.model_copy(update={"without": blind, "focus": 0.0})
        actors = self._actors(None) or [self._imaginary()]
        return self._unverified(self._explored("read", self.unknown, setting, actors, _READ, self._imaginer(errors=0)))

    def tests(self, part: HeldOut = "test") -> list[Task]:
        """Held-out queries of every tool; the prompt lists none, so any of them may be called."""
        seen = {task.prompt for task, _ in self.demonstrations}
        tested = self._imagined(part, self.catalog.names, self.config.test, _TESTED)
        return [replace(task, tools=self.catalog.names) for task, _ in tested if task.prompt not in seen]

    def without_held_out(self, found: Found) -> Found:
        """What was found but the calls that held-out queries mean: a model that imagines, or a policy that comes to the
        same answer by another call, keeps to no part of them.
        """
        golds = [task.gold for part in ("test", "validation") for task in self.tests(part)]
        held_out = {_plain(gold) for gold in golds if gold is not None and gold.arguments}

        def kept(pairs: Sequence[Solved]) -> list[Solved]:
            return [pair for pair in pairs if held_out.isdisjoint(map(_plain, pair[1].calls))]

        return replace(found, solved=kept(found.solved), examples=kept(found.examples))

    def _unverified(self, trials: Sequence[Trial]) -> Found:
        """Of trials whose calls were not run, the last attempts that could be called: nobody can tell more of them."""
        last = [(trial.task, trial.attempts[-1]) for trial in trials if trial.attempts]
        solved = [pair for pair in last if any(isinstance(call, ToolCall) for call in pair[1].calls)]
        return self._found(trials, solved, [])

    def _reviewed(self, name: str, setting: Exploration, trials: Sequence[Trial]) -> list[Review]:
        """What the judge, where the config names one, finds of attempts that nobody judged while they were made."""
        if self.config.judge is None:
            return []
        with Log(self.run.path / f"{name}.reviews.jsonl", Review) as log:
            reviewer = Reviewer(setting, self.catalog, self._client(self.config.judge), log)
            asyncio.run(self._to_its_end(reviewer.review(trials)))
        self.given_up += [*reviewer.unpaid, *reviewer.unreached]
        self.unreached = self.unreached or bool(reviewer.unreached)
        return list(reviewer.reviews.values())

    def _found(
        self,
        trials: Sequence[Trial],
        solved: Sequence[Solved],
        rejected: Sequence[Solved],
        reviews: Sequence[Review] = (),
    ) -> Found:
        settings = self.config.exploitation
        made = paraphrase(solved, self.specs, target=settings.target, most=settings.most, seed=self.config.seed)
        return Found(trials=trials, solved=solved, rejected=rejected, examples=made.examples, reviews=reviews)

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
        journal = Journal(self.run.path.resolve() / "calls" / name) if imaginer else None
        config = TrialConfig(
            setting=setting,
            catalog=self.catalog,
            format=self.format,
            imaginer=imaginer or SchemaImaginer(calls=_PARTS.get(name, _PARTS["learned"])),
            actors=actors,
            judge=self._client(self.config.judge) if self.config.judge and imaginer else None,
            seed=self.config.seed + seed,
            journal=journal,
            concurrency={
                name: policy.concurrency
                for name, policy in self.config.policies.items()
                if isinstance(policy, EndpointConfig | VllmConfig)
            },
        )
        with log, self._makers(config) as make:
            explorer = Explorer(config, log, tools=tools, make=make)
            trials = asyncio.run(self._to_its_end(explorer.explore()))
        if imaginer:
            shares = {tool: round(one.share, 3) for tool, one in explorer.coverage().items()}
            write_json(self.run.path / f"{name}.coverage.json", shares)
            self.given_up = [*explorer.unpaid, *explorer.unreached]
            self.unreached = bool(explorer.unreached)
        if not self.given_up and journal is not None:  # every call is in the log of trials now
            journal.close()
            forget(journal.path, ROUND)
        return trials

    @contextlib.contextmanager
    def _makers(self, config: TrialConfig) -> Iterator[Make | None]:
        """Workers on Ray, where the config asks for them; queries that nobody has to think of are made here."""
        place = self.config.place
        if place is None or config.journal is None:
            yield None
            return
        self.cluster.join(gpus=place.workers * place.gpus)
        await_writers(config.journal.path)  # workers outlive a killed driver by some seconds
        pool = TrialPool(config, place)
        try:
            yield pool.make
        finally:
            pool.stop()

    async def _to_its_end(self, work: Awaitable[T]) -> T:
        """Do it, and close the connections of this event loop."""
        try:
            return await work
        finally:
            for client in self._clients.values():
                await client.close()

    def _client(self, name: str) -> EndpointClient:
        """What asks an endpoint, for whatever it is asked: one client keeps one budget."""
        if name not in self._clients:
            self._clients[name] = self.config.client(name)
        return self._clients[name]

    def _imaginer(self, errors: float | None = None) -> Imaginer:
        """The config's; with another share of calls that are likely to be refused, where it can be told."""
        chosen = self.config.imaginer
        if isinstance(chosen, SchemaImagination):
            share = chosen.errors if errors is None else errors
            return SchemaImaginer(max_similarity=chosen.max_similarity, errors=share, calls=_PARTS["learned"])
        return ModelImaginer(
            self._client(chosen.policy),
            temperature=chosen.temperature,
            max_tokens=chosen.max_tokens,
            max_similarity=chosen.max_similarity,
        )

    def _actors(self, base: Path | None) -> list[Actor]:
        """Those of the config; the policy that explores only where it is there."""
        return [
            _actor(place, one, self._policy(one.policy, base))
            for place, one in enumerate(self.config.actors)
            if one.policy != LIVE or base is not None
        ]

    def _policy(self, name: str, base: Path | None) -> Callable[[], Policy]:
        """What builds a policy in the process that makes the trials."""
        if name == IMAGINED:
            return self._imaginary().build
        gpu = self.config.place is not None and self.config.place.gpus > 0
        if name == LIVE:
            return LocalPolicy(LIVE, str(base and base.resolve()), gpu=gpu)
        config = self.config.policies[name]
        if isinstance(config, EndpointConfig | VllmConfig):
            own = {"mode": config.mode, "system": config.system, "logprobs": config.logprobs}
            return partial(EndpointPolicy, name, self._client(name), self.format, self.catalog, **own)
        return config.build(name, self.format, self.catalog, gpu=gpu)

    def _imaginary(self) -> Actor:
        policy = GoldPolicy(IMAGINED, self.catalog, self.format)
        return Actor(source=Source(name=IMAGINED, policy=IMAGINED), build=policy)


def _plain(call: ToolCall | MalformedCall) -> str:
    return canonical(call_row(call))


def _actor(place: int, config: ActorConfig, build: Callable[[], Policy]) -> Actor:
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens)
    name = IMAGINED if config.policy == IMAGINED else f"{config.policy}-{place}"
    return Actor(source=Source(name=name, policy=config.policy, sampling=sampling, force=config.force), build=build)
