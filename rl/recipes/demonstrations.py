"""Stage 1's demonstrations: annotators', or the policy's own right answers and a teacher's calls (TRICE, section 3.1).

What a policy or a teacher has done stands in the run's ``demonstrations`` folder, a line for each task, and is not done
again: neither after a crash, nor once the paid part is over.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from executors.errors import ConfigError, DataError
from rewards.ranking import GOLD
from rewards.selectivity import LIVE
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.tasks.benchmark import Benchmark
from rl.progress import Progress
from rl.recipes.cloning import Annotators, OwnAnswers
from rl.recipes.parts import RecipeConfig
from rl.run import Run
from rl.serving.policies import GoldPolicy, LocalPolicy, RecordedPolicy
from rl.serving.sources import EndpointConfig, VllmConfig
from rollouts.formats import Format
from rollouts.formats.chat import ChatFormat
from rollouts.formats.few_shot import DATASET, FewShotFormat, shot
from rollouts.policy import Source
from rollouts.remote import RolloutPool, Workers
from rollouts.store import Log
from rollouts.types import Episode, Group, Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig, require_played

FOLDER = "demonstrations"
ROUNDS = (f"{FOLDER}/own", f"{FOLDER}/taught")
"""What the two passes over the questions are called where seeds, ids and recorded calls are told by it."""
_DEMONSTRATOR = "demonstrator"


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the demonstrations of one data set came from."""

    own: int = 0
    """Questions that the policy answered rightly by itself."""
    taught: int = 0
    """Questions that it did not, and whose teacher's call came to the answer."""
    left_out: int = 0
    """Questions that nobody answered."""


class Pool(Protocol):
    """What stage 1 asks of a ``RolloutPool``."""

    def pieces(self, tasks: Sequence[Task], sources: Sequence[Source], round: str) -> Iterable[list[Group]]: ...

    def stop(self) -> None: ...


class Demonstrations:
    """Makes demonstrations for one run."""

    def __init__(
        self,
        config: RecipeConfig,
        benchmark: Benchmark,
        format: Format,
        worker: Callable[[Mapping[str, Any], Format], WorkerConfig],
        start: Callable[[Workers, float], Pool] | None = None,
    ) -> None:
        """
        Args:
            config: of the run.
            benchmark: whose demonstrations are written.
            format: how.
            worker: what plays with some policies, in a format.
            start: starts workers, each of which may take so many seconds; on Ray by default.
        """
        self._config = config
        self._benchmark = benchmark
        self._format = format
        self._worker = worker
        self._start = start or _start

    def policy_format(self) -> Format:
        """How the policy reads and writes: the run's format, behind solved examples where the config asks for them."""
        count = self._config.few_shot
        return self.with_shots(count, self._config.cloning.annotators.call_rate) if count else self._format

    def source_formats(self) -> dict[str, Format]:
        """By source of stage 2, how those read that have solved examples put before each question.

        Raises:
            ConfigError: see ``with_shots``.
        """
        counts = {source.shots for source in self._config.sources if source.shots}
        formats = {count: self.with_shots(count, call_rate=None) for count in counts}
        return {source.name: formats[source.shots] for source in self._config.sources if source.shots}

    def annotated(self, annotator: int, kind: Annotators) -> list[RankedGroup]:
        """Those of an annotator, really executed.

        Args:
            annotator: 0 for the policy's own; a peer has another, who draws anew where to call.
            kind: how often they call.
        """
        recorded = self._benchmark.recordings.get(GOLD)
        rate = kind.call_rate
        gold = GoldPolicy(
            _DEMONSTRATOR, self._benchmark.catalog, self._format, rate, seed=self._config.seed * 1000 + annotator
        )
        build = gold if recorded is None else RecordedPolicy(_DEMONSTRATOR, recorded)
        return [_imitated(group.task, group.episodes[0]) for group in self._play(build, self._benchmark.demonstrations)]

    def shots(self, count: int, call_rate: Mapping[str, float] | None) -> dict[str, tuple[str, ...]]:
        """Solved examples of each data set, the same for every question."""
        chosen: dict[str, list[Task]] = {}
        for task in {task.id: task for task in self._benchmark.demonstrations}.values():
            members = chosen.setdefault(task.labels.get(DATASET, ""), [])
            if len(members) < count:
                members.append(task)
        gold = GoldPolicy(
            _DEMONSTRATOR, self._benchmark.catalog, self._format, call_rate, seed=self._config.seed * 1000
        )
        return {
            name: tuple(shot(group.task, group.episodes[0], self._format) for group in self._play(gold, tasks))
            for name, tasks in chosen.items()
        }

    def own(self, base: Path, run: Run, progress: Progress) -> list[RankedGroup]:
        """The policy's own right answers, and a teacher's calls where it has none.

        Args:
            base: checkpoint of the policy that is asked.
            run: keeps what was done, and the counts.
            progress: what the user sees.

        Raises:
            TooManyFailuresError: the infrastructure let too few attempts finish.
            DataError: no question has a demonstration.
        """
        demonstrator = self._config.cloning.demonstrator
        if not isinstance(demonstrator, OwnAnswers):
            raise TypeError("the demonstrator is of another kind")
        tasks = list({task.id: task for task in self._benchmark.demonstrations}.values())[: demonstrator.questions]
        folder = run.folder(FOLDER)
        sampling = Sampling(max_tokens=demonstrator.max_tokens)
        asked = Source(name="own", policy=LIVE, sampling=sampling, force="direct")
        local = LocalPolicy(LIVE, str(base), gpu=self._config.rollouts.gpus > 0)
        own = self._collected(folder / "own.jsonl", tasks, asked, local, self._format)
        kept = {id: attempt for id, group in own.items() if (attempt := self._right(group, called=False))}
        wrong = [task for task in tasks if task.id in own and task.id not in kept]
        taught = self._taught(folder / "taught.jsonl", wrong, demonstrator, local)
        made = {id: attempt for id, group in taught.items() if (attempt := self._right(group, called=True))}
        counts = origins(tasks, kept, made)
        run.finish(FOLDER, {"origins": {name: asdict(part) for name, part in counts.items()}})
        for name, part in counts.items():
            progress.line(f"{name or 'demonstrations'}: {part.own} own, {part.taught} taught, {part.left_out} left out")
        both = kept | made
        if not both:
            raise DataError(f"neither the policy nor its teacher answered any question; see {folder}")
        return [_imitated(task, both[task.id]) for task in tasks if task.id in both]

    def _taught(
        self, path: Path, tasks: Sequence[Task], demonstrator: OwnAnswers, local: LocalPolicy
    ) -> dict[str, Group]:
        sampling = Sampling(max_tokens=demonstrator.max_tokens, temperature=demonstrator.temperature)
        source = Source(
            name="teacher",
            policy=demonstrator.teacher,
            count=demonstrator.attempts,
            sampling=sampling,
            force=None if demonstrator.teacher == GOLD else "call",
        )
        format = self._format
        if demonstrator.shots:
            format = self.with_shots(demonstrator.shots, call_rate=None)
        build: Any
        if demonstrator.teacher == GOLD:
            build = GoldPolicy(GOLD, self._benchmark.catalog, format)
        elif demonstrator.teacher == LIVE:
            build = local
        else:
            config = self._config.policies[demonstrator.teacher]
            if demonstrator.shots and isinstance(config, EndpointConfig | VllmConfig) and config.mode == "tools":
                raise ConfigError(
                    f"policies.{demonstrator.teacher}: shots are text, and mode 'tools' sends messages; set mode: text"
                )
            gpu = self._config.rollouts.gpus > 0
            build = config.build(demonstrator.teacher, format, self._benchmark.catalog, gpu=gpu)
        return self._collected(path, tasks, source, build, format)

    def with_shots(self, count: int, call_rate: Mapping[str, float] | None) -> Format:
        """The run's format behind solved examples.

        Raises:
            ConfigError: the format is a chat template, whose turns are no text; or nothing is demonstrated.
        """
        if isinstance(self._format, ChatFormat):
            raise ConfigError("shots are text, and the chat format has turns; take format inline, annotated or react")
        shots = self.shots(count, call_rate)
        if not shots:
            raise ConfigError("there are no shots to show: the tasks have no demonstrations to take them from")
        return FewShotFormat(self._format, shots)

    def _collected(
        self, path: Path, tasks: Sequence[Task], source: Source, build: Any, format: Format
    ) -> dict[str, Group]:
        """What a source made of each task: what is on disk, and the rest played and written as it comes."""
        log: Log[Group] = Log(path, Group)
        known = {group.task.id: group for group in log.read()}
        left = [task for task in tasks if task.id not in known]
        if not left:
            return known
        apart = isinstance(self._config.policies.get(source.policy), EndpointConfig | VllmConfig)
        rollouts = self._config.rollouts
        workers = Workers(
            config=self._worker({source.policy: build}, format),
            count=1 if apart else rollouts.workers,
            cpus=0 if apart else 1,
            gpus=0 if apart else rollouts.gpus,
        )
        pool = self._start(workers, rollouts.timeout)
        played: list[Group] = list(known.values())
        try:
            with closing(log):
                for pieces in pool.pieces(left, [source], f"{FOLDER}/{path.stem}"):
                    good = [group for group in pieces if any(episode.finished for episode in group.episodes)]
                    log.append(good)
                    known |= {group.task.id: group for group in good}
                    played += pieces
        finally:
            pool.stop()
        require_played(played)
        return known

    def _right(self, group: Group, *, called: bool) -> Episode | None:
        """The first attempt that is right and did what was asked for."""
        return next(
            (
                episode
                for episode in group.episodes
                if episode.finished
                and episode.called == called
                and not episode.malformed
                and self._config.rewards.right(group.task, episode)
            ),
            None,
        )

    def _play(self, build: Any, tasks: Sequence[Task]) -> list[Group]:
        worker = RolloutWorker(self._worker({_DEMONSTRATOR: build}, self._format))
        source = Source(name=_DEMONSTRATOR, policy=_DEMONSTRATOR)
        return asyncio.run(worker.play(tasks, [source], _DEMONSTRATOR))


def tokenizer_texts(benchmark: Benchmark, format: Format) -> Iterator[str]:
    """What a tokenizer is built from: training prompts, and the gold attempts at them."""
    specs = benchmark.catalog.specs()
    recorded = benchmark.recordings.get(GOLD, {})
    for task in benchmark.demonstrations:
        yield task.prompt
        yield "".join(recorded.get(task.id, ()))
        if task.gold is not None:
            yield format.write_call(task.gold, specs)
        if task.answer is not None:
            yield format.write_answer(task.answer)


def origins(tasks: Iterable[Task], own: Iterable[str], taught: Iterable[str]) -> dict[str, Origins]:
    """By data set, where the demonstrations of tasks came from."""
    owned, teachers = set(own), set(taught)
    counts: dict[str, Counter[str]] = {}
    for task in tasks:
        origin = "own" if task.id in owned else "taught" if task.id in teachers else "left_out"
        counts.setdefault(task.labels.get(DATASET, ""), Counter())[origin] += 1
    return {name: Origins(**count) for name, count in counts.items()}


def _start(workers: Workers, timeout: float) -> Pool:
    return RolloutPool({"stage-1": workers}, timeout=timeout)


def _imitated(task: Task, episode: Episode) -> RankedGroup:
    return RankedGroup(task, (Candidate(episode, Reward(1.0)),))
