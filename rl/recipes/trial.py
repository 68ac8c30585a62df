"""What ``apprentice check`` tries of a config without a model: a prompt as it is read, the tools, the rewards."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from executors.catalog import Catalog
from executors.errors import DataError
from executors.executor import Executor
from executors.schemas.fabricate import fabricate_arguments
from executors.tool import Tool
from executors.types import Observation, Scene, ToolCall
from rewards.ranking import GOLD, Recorded
from rl.data.tasks.benchmark import Benchmark
from rl.recipes.parts import RecipeConfig
from rl.serving.policies import GoldPolicy, RecordedPolicy
from rollouts.formats import Format
from rollouts.policy import ScriptedPolicy, Source
from rollouts.steps import introduced
from rollouts.types import Group, Task
from rollouts.worker import RolloutWorker, WorkerConfig

_TOOLS, _TASKS = 8, 20
_TIMEOUT = 2.0
"""Seconds that one call of a trial may take."""
_OWN, _GIVEN, _PLAIN = "\x1b[32m", "\x1b[2m", "\x1b[0m"


def trials(config: RecipeConfig, benchmark: Benchmark, *, colour: bool) -> Iterator[str]:
    """Try a config's parts; yields what to show.

    Args:
        config: of the run.
        benchmark: its tasks and tools, loaded.
        colour: whether the output is a terminal: what the policy learns to write is then green, the rest faint; else
            the former stands between « and ».
    """
    format = config.format.build()
    groups = _played(config, benchmark, format)
    if groups:
        yield from _prompt(groups[0], benchmark, format, colour)
    yield from tool_trials(benchmark.catalog, benchmark.train, config.rollouts.tool_timeout)
    if not isinstance(config.rewards, Recorded):
        yield from _rewards(config, groups)


def _played(config: RecipeConfig, benchmark: Benchmark, format: Format) -> list[Group]:
    """Attempts at some tasks without a model: the gold one, an empty one, a wrong one, a malformed one."""
    tasks = benchmark.train[:_TASKS]
    following = {task.id: tasks[(number + 1) % len(tasks)] for number, task in enumerate(tasks)}
    recorded = benchmark.recordings.get(GOLD)
    gold = GoldPolicy(GOLD, benchmark.catalog, format)

    def wrong(task: Task) -> Sequence[str]:
        return [format.write_answer(following[task.id].answer or "")]

    def malformed(task: Task) -> Sequence[str]:
        call = task.gold or ToolCall(task.tools[0] if task.tools else "none", {})
        return [format.write_call(call, benchmark.catalog.specs(task.tools)).rstrip()[:-3], format.write_answer("")]

    policies: Mapping[str, Any] = {
        GOLD: gold if recorded is None else RecordedPolicy(GOLD, recorded),
        "empty": lambda: ScriptedPolicy("empty", lambda task: [format.write_answer("")]),
        "wrong": lambda: ScriptedPolicy("wrong", wrong),
        "malformed": lambda: ScriptedPolicy("malformed", malformed),
    }
    worker = RolloutWorker(
        WorkerConfig(
            policies=policies,
            executor=lambda: Executor(benchmark.catalog, timeout=config.rollouts.tool_timeout),
            format=format,
            max_turns=config.rollouts.max_turns,
        )
    )
    return asyncio.run(worker.play(tasks, [Source(name=name, policy=name) for name in policies], "trial"))


def _prompt(group: Group, benchmark: Benchmark, format: Format, colour: bool) -> Iterator[str]:
    """The gold attempt at the first task, as the policy reads and writes it."""
    begin, end, given = (_OWN, _PLAIN, _GIVEN) if colour else ("«", "»", "")
    task = asyncio.run(_introduced(group.task, benchmark))
    text = f"{given}{format.opening(task, benchmark.catalog.specs(task.tools))}{_PLAIN if colour else ''}"
    episode = group.episodes[0]
    for index, turn in enumerate(episode.turns):
        text += f"{begin}{turn.completion.text}{end}"
        if turn.calls and index + 1 < len(episode.turns):
            text += f"{given}{format.observed(turn)}{_PLAIN if colour else ''}"
    told = "green" if colour else "between « and »"
    yield f"prompt     task {task.id}; what is {told} is learned from, the rest is read"
    yield from (f"           {line}" for line in text.splitlines())


async def _introduced(task: Task, benchmark: Benchmark) -> Task:
    """The task with what its environments say on being opened."""
    async with Executor(benchmark.catalog).open(_scene(task), task.tools) as session:
        return await introduced(task, session)


def _scene(task: Task) -> Scene:
    """An attempt at a task, as environments are told of it."""
    return Scene("trial", row={**task.labels, "prompt": task.prompt})


def tool_trials(catalog: Catalog, tasks: Sequence[Task], timeout: float) -> Iterator[str]:
    """What each of the first tools makes of a good call and of bad ones; no good one is invented where a second one
    might do harm.

    Args:
        catalog: the tools.
        tasks: one at least; their gold calls are the good ones.
        timeout: seconds that a call may take.
    """
    golds = {task.gold.tool: task for task in tasks if task.gold is not None}
    executor = Executor(catalog, timeout=min(_TIMEOUT, timeout))
    for tool in list(catalog)[:_TOOLS]:
        task = golds.get(tool.name, tasks[0])
        gold = task.gold.arguments if task.gold is not None and task.gold.tool == tool.name else None
        tried = [
            f"{what} {_told(*_run(executor, task, ToolCall(tool.name, arguments)))}"
            for what, arguments in _calls(tool, gold)
        ]
        yield f"tool       {tool.name}: {'; '.join(tried)}"


def _calls(tool: Tool, gold: Mapping[str, Any] | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if gold is not None:
        yield "a gold call", gold
    elif tool.limits.idempotent:
        with contextlib.suppress(DataError):  # a schema that nothing fits
            yield "an invented call", fabricate_arguments(tool.spec.parameters, 0)
    properties = tool.spec.parameters.get("properties", {})
    if tool.spec.parameters.get("required"):
        yield "no arguments", {}
    if properties:
        yield "a list for each", {name: [[]] for name in properties}
    yield "an unknown one", {**(gold or {}), "not_an_argument": 1}


def _run(executor: Executor, task: Task, call: ToolCall) -> tuple[Observation, float]:
    """What a call gives in an attempt at a task, of which environments are told."""
    began = time.perf_counter()
    with executor.open(_scene(task)) as session:
        return session.run(call), time.perf_counter() - began


def _told(observation: Observation, seconds: float) -> str:
    return f"{observation.status}{f' after {seconds:.1f} s' if seconds > 0.5 else ''}"


def _rewards(config: RecipeConfig, groups: Sequence[Group]) -> Iterator[str]:
    """The mean reward of each kind of attempt, and whether rewards prefer anything."""
    values: dict[str, list[float]] = {}
    constant = True
    for group in groups:
        finished = [episode for episode in group.episodes if episode.finished]
        rewards = config.rewards.rewards(Group(group.task, tuple(finished)))
        for episode, reward in zip(finished, rewards, strict=True):
            values.setdefault(episode.source, []).append(reward.value)
        constant &= len({reward.value for reward in rewards}) < 2
    means = {name: sum(found) / len(found) for name, found in values.items()}
    yield f"rewards    {', '.join(f'{name} {mean:.2f}' for name, mean in means.items())} (means of {len(groups)} tasks)"
    if constant:
        yield "warning    every attempt at a task has the same reward, so there is nothing to learn from"
    elif better := [name for name, mean in means.items() if name != GOLD and mean >= means.get(GOLD, mean)]:
        yield f"warning    {' and '.join(better)} attempts are rewarded as well as gold ones, or better"
