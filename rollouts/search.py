"""Search over attempts: go on as far as it leads, then back, and try another way (ToolBench's DFSDT).

A node is one reply and what its calls gave. Where a way ends without an answer, the search goes back and asks again at
an earlier node, saying what was tried there. ``chain`` is the plain form (``CoT@n``): attempts from the beginning,
each told nothing of the others. A search that needs no second way is the attempt that ``play`` makes.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from executors.errors import ConfigError, TransientError
from executors.executor import Executor
from executors.session import Session
from executors.types import ToolCall
from rollouts.formats import Format
from rollouts.policy import Policy, PolicyUnavailableError, PromptTooLongError, Source, derive_seed
from rollouts.steps import completed, introduced, next_request, outcome, scene_of
from rollouts.types import Completion, Episode, StopReason, Task, Turn

Method = Literal["chain", "dfs"]
_FAR = 1 << 30
"""More nodes to go back than there are."""
_SEARCHES = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """How far a search goes."""

    method: Method = "dfs"
    width: int = 2
    """Replies that are tried at a node; of chains, how many there are."""
    depth: int = 8
    """Turns of one way."""
    queries: int = 200
    """Replies in all."""
    answers: int = 1
    """Answers after which it is over."""
    back: int = 2
    """Nodes to go back over after a reply that gives up: 1 asks again in its place, 2 in that of the call before it.
    After one that came to the limit of depth it is 1."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "queries", "answers", "back"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a search must be at least 1, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        """What ToolBench calls it."""
        return f"CoT@{self.width}" if self.method == "chain" else f"DFS_woFilter_w{self.width}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One reply, what came of it, and what was tried after it."""

    turn: Turn
    order: int
    """Of the reply among all of the search, from 0."""
    stop: StopReason | None = None
    """Why the way ends here; None where it goes on."""
    answer: str | None = None
    """What a last reply answers; empty where it gives up."""
    worth: float | None = None
    """What the environments said of the way that ends here, where they say so."""
    children: tuple["Node", ...] = ()

    @property
    def answered(self) -> bool:
        """Whether a way ends here with an answer."""
        return self.stop == "answer" and bool(self.answer and self.answer.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Everything that was tried at one task."""

    id: str
    task: Task
    source: Source
    policy: str
    version: int
    seed: int
    searching: Searching
    children: tuple[Node, ...]
    """First replies, and what follows them."""
    stop: Literal["answer", "exhausted", "spent", "failed", "cut"]
    """``exhausted``: no way was left; ``spent``: no reply was; ``failed`` and ``cut`` as of an episode."""
    queries: int
    """Replies that were asked for."""
    seconds: float
    error: str = ""

    def ways(self) -> list[tuple[Node, ...]]:
        """Every way from the first reply to a last one, in the order that they ended."""
        found: list[tuple[Node, ...]] = []
        todo: list[tuple[Node, ...]] = [(child,) for child in self.children]
        while todo:
            way = todo.pop()
            if way[-1].children:
                todo += [(*way, child) for child in way[-1].children]
            else:
                found.append(way)
        return sorted(found, key=lambda way: way[-1].order)

    def best(self) -> tuple[Node, ...]:
        """The last way with an answer, else the last of all; empty where there is none."""
        ways = self.ways()
        return next((way for way in reversed(ways) if way[-1].answered), ways[-1] if ways else ())

    def episode(self, way: Sequence[Node] | None = None) -> Episode:
        """A way as an attempt; the best one by default."""
        way = self.best() if way is None else way
        last = way[-1] if way else None
        stopped: StopReason = "turn_limit" if way else "prompt_limit"
        if self.stop in ("failed", "cut"):
            stopped = self.stop
        return Episode(
            id=self.id,
            task_id=self.task.id,
            source=self.source.name,
            policy=self.policy,
            version=self.version,
            turns=tuple(node.turn for node in way),
            answer=last.answer if last else None,
            stop=last.stop if last and last.stop else stopped,
            force=self.source.force,
            temperature=self.source.sampling.temperature,
            seed=self.seed,
            seconds=self.seconds,
            error="" if last and last.stop else self.error,
            environment_reward=last.worth if last else None,
        )


async def search(
    task: Task,
    policy: Policy,
    executor: Executor,
    format: Format,
    searching: Searching,
    *,
    source: Source | None = None,
    id: str = "",
    seed: int = 0,
) -> Search:
    """Let a policy search for a way to an answer.

    Every way has a session of its own with the executor: on going back, tools that share a state get a fresh one, in
    which the calls that the way keeps are made again.

    Args:
        task: what to attempt.
        policy: who attempts it. What was tried is told in the last observation, or in the request; policies that name
            tools under a constraint are given it as ``Request.tried`` too.
        executor: runs the calls.
        format: how the task, the calls and the observations are written.
        searching: how far.
        source: how the policy is sampled; greedy and free by default.
        id: of the search, unique in its run.
        seed: of the sampling.

    Returns:
        What was tried. It raises as little as ``play`` does.
    """
    source = source or Source(name=policy.name, policy=policy.name)
    run = _Run(task, policy, executor, format, searching, source, id, seed)
    started = time.perf_counter()
    stop: Literal["answer", "exhausted", "spent", "failed", "cut"]
    error = ""
    try:
        await run.begin()
        await run.descend([run.root])
        stop = "answer" if run.answers >= searching.answers else "spent" if run.spent else "exhausted"
        error = "" if run.answers else run.error
    except (PolicyUnavailableError, TransientError) as failure:
        stop, error = "failed", str(failure)
    except asyncio.CancelledError as cancelled:
        if cancelled.args != ("cut",):
            raise
        stop, error = "cut", f"it was cut after {time.perf_counter() - started:.1f} s"
    finally:
        policy.release(run.session)
        await run.close()
    return Search(
        id=id,
        task=task,
        source=source,
        policy=policy.name,
        version=policy.version,
        seed=seed,
        searching=searching,
        children=tuple(child.frozen() for child in run.root.children),
        stop=stop,
        queries=run.queries,
        seconds=time.perf_counter() - started,
        error=error,
    )


@dataclass(slots=True)
class _Open:
    """A node while the search is at it."""

    turn: Turn | None = None
    place: int = 0
    """Among the replies that were tried where it was."""
    order: int = 0
    stop: StopReason | None = None
    answer: str | None = None
    worth: float | None = None
    children: list["_Open"] = field(default_factory=list)

    def frozen(self) -> Node:
        assert self.turn is not None
        below = tuple(child.frozen() for child in self.children)
        return Node(
            turn=self.turn, order=self.order, stop=self.stop, answer=self.answer, worth=self.worth, children=below
        )


class _Run:
    """One search under way."""

    def __init__(
        self,
        task: Task,
        policy: Policy,
        executor: Executor,
        format: Format,
        searching: Searching,
        source: Source,
        id: str,
        seed: int,
    ) -> None:
        self.task, self.told = task, task
        self.policy, self.executor, self.format = policy, executor, format
        self.searching, self.source, self.id, self.seed = searching, source, id, seed
        self.specs = executor.catalog.specs(task.tools)
        self.stateful = {name for name in task.tools if executor.catalog.get(name).state is not None}
        self.session = f"{task.id}/{source.name}/{seed}/search-{next(_SEARCHES)}"
        self.tools: Session | None = None
        self.root = _Open()
        self.queries = self.answers = self.branches = 0
        self.error = ""
        self.chained = searching.method == "chain"

    @property
    def spent(self) -> bool:
        return self.queries >= self.searching.queries

    async def begin(self) -> Session:
        """A session for another way; the first one's scene is that of ``play``."""
        scene = scene_of(self.task, self.source, self.id, self.seed)
        if self.branches:
            scene = replace(scene, episode=f"{scene.episode}/{self.branches}")
        self.branches += 1
        self.tools = self.executor.open(scene, self.task.tools)
        self.told = await introduced(self.task, self.tools)
        return self.tools

    async def close(self) -> None:
        if self.tools is not None:
            await self.tools.aclose()

    async def descend(self, path: list[_Open]) -> int:
        """Try replies after a path, and go on after each; how many nodes the search is to go back then."""
        node = path[-1]
        width = self.searching.width if not self.chained or len(path) == 1 else 1
        for place in range(width):
            if self.spent:
                return _FAR
            if place:
                await self.go_back(path)
            try:
                child = await self.reply(path, place)
            except PromptTooLongError as limit:
                self.error = str(limit)
                node.stop = node.stop if node.children else "prompt_limit"
                return 1
            node.children.append(child)
            back = await self.descend([*path, child]) if child.stop is None else self.back(child)
            if self.answers >= self.searching.answers:
                return _FAR
            if back > 1:
                return back - 1
        return 1

    def back(self, child: _Open) -> int:
        """How far to go back from a last reply."""
        answered = child.stop == "answer" and bool(child.answer and child.answer.strip())
        self.answers += answered
        gave_up = child.stop in ("answer", "malformed")
        return self.searching.back if gave_up and not self.chained else 1

    async def go_back(self, path: Sequence[_Open]) -> None:
        """A fresh session in which the path's calls to tools with a state are made again."""
        await self.close()
        tools = await self.begin()
        for node in path[1:]:
            assert node.turn is not None
            again = [call for call in node.turn.calls if isinstance(call, ToolCall) and call.tool in self.stateful]
            if again:
                await tools.arun_all(again)

    async def reply(self, path: Sequence[_Open], place: int) -> _Open:
        """Ask for one more reply after a path, and run what it calls."""
        tried = () if self.chained else tuple(child.turn for child in path[-1].children if child.turn is not None)
        turns = [node.turn for node in path[1:] if node.turn is not None]
        task, shown = _telling(self.told, turns, tried)
        segments: list[str | Completion] = [self.format.opening(task, self.specs)]
        for turn in shown:
            segments += [turn.completion, self.format.observed(turn)]
        asked = next_request(task, segments, shown, self.session, self.source, self.format, self.specs, self.seed)
        places = [*(node.place for node in path[1:]), place]
        if any(places):
            asked = replace(asked, seed=derive_seed(self.seed, "way", *places))
        order = self.queries
        self.queries += 1
        completion = await completed(self.policy, replace(asked, tried=tried))
        assert self.tools is not None
        last = len(path) >= self.searching.depth
        turn, stop = await outcome(completion, self.specs, self.tools, self.format, last=last)
        ended = not turn.calls or stop != "answer"
        answer = None if turn.calls else self.format.answer(completion.text)
        worth = await self.tools.reward() if ended and self.executor.judged else None
        return _Open(turn, place, order, stop if ended else None, answer, worth)


def told_of(tried: Sequence[Turn]) -> str:
    """What is said of replies that were tried in the same place before."""
    ways = [
        ", ".join(
            f"{call.tool} {json.dumps(dict(call.arguments), ensure_ascii=False)}"
            if isinstance(call, ToolCall)
            else "a call that could not be read"
            for call in turn.calls
        )
        or "to give up"
        for turn in tried
    ]
    return f"[Tried from here before, in vain: {'; '.join(ways)}. Do something else now.]\n"


def _telling(task: Task, turns: Sequence[Turn], tried: Sequence[Turn]) -> tuple[Task, list[Turn]]:
    """The task and the turns with what was tried in front of what was read last."""
    if not tried:
        return task, list(turns)
    said = told_of(tried)
    if not turns:
        return replace(task, prompt=f"{said}{task.prompt}"), []
    first, *others = turns[-1].observations
    shown = replace(turns[-1], observations=(replace(first, content=f"{said}{first.content}"), *others))
    return task, [*turns[:-1], shown]


async def search_all(
    tasks: Sequence[Task],
    policy: Policy,
    executor: Executor,
    format: Format,
    searching: Searching,
    *,
    source: Source | None = None,
    round: str = "search",
    seed: int = 0,
    at_once: int = 16,
) -> list[Search]:
    """Search at many tasks, several at once; the searches come in the order of the tasks.

    Args:
        tasks: what to attempt.
        policy: who attempts.
        executor: runs the calls.
        format: how everything is written.
        searching: how far each goes.
        source: how the policy is sampled.
        round: part of each search's id and seed.
        seed: of the sampling.
        at_once: searches under way at the same time.
    """
    room = asyncio.Semaphore(at_once)

    async def one(task: Task) -> Search:
        async with room:
            own = derive_seed(seed, round, task.id)
            return await search(
                task, policy, executor, format, searching, source=source, id=f"{round}/{task.id}", seed=own
            )

    return list(await asyncio.gather(*map(one, tasks)))
