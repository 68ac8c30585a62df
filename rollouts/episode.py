"""The only episode loop: complete, parse, run, observe, until an answer or a limit."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace

from executors.errors import TransientError
from executors.executor import Executor
from executors.session import Session
from executors.types import MalformedCall, Scene, ToolSpec
from rollouts.formats import Format
from rollouts.policy import Policy, PolicyUnavailableError, PromptTooLongError, Request, Source, derive_seed
from rollouts.types import Completion, Episode, StopReason, Task, Turn

_ATTEMPTS = itertools.count()
"""Tells apart two attempts at one task that run at once."""


async def play(
    task: Task,
    policy: Policy,
    executor: Executor,
    format: Format,
    *,
    source: Source | None = None,
    id: str = "",
    seed: int = 0,
    max_turns: int = 4,
) -> Episode:
    """Let a policy attempt a task once.

    Args:
        task: what to attempt.
        policy: who attempts it.
        executor: runs the calls.
        format: how the task, the calls and the observations are written.
        source: how the policy is sampled, and whether its first reply is forced; greedy and free by default.
        id: of the episode, unique in its run.
        seed: of the sampling; an episode depends on it and on nothing else that is random.
        max_turns: calls after which an episode ends without an answer.

    Returns:
        The episode. It never raises for what a policy writes or a tool does. Where the policy or an environment cannot
        be reached, the episode's stop reason is ``failed``; where the policy cannot read any more, ``prompt_limit``;
        where the play is cancelled with the message ``cut``, it is ``cut``, and the turns so far are kept.
    """
    source = source or Source(name=policy.name, policy=policy.name)
    specs = executor.catalog.specs(task.tools)
    session = f"{task.id}/{source.name}/{seed}/{next(_ATTEMPTS)}"
    tools = executor.open(_scene(task, source, id, seed), task.tools)
    segments: list[str | Completion] = []
    turns: list[Turn] = []
    answer: str | None = None
    stop: StopReason
    error = ""
    started = time.perf_counter()
    try:
        task = await _introduced(task, tools)
        segments.append(format.opening(task, specs))
        while True:
            completion = await _completed(policy, _request(task, segments, turns, session, source, format, specs, seed))
            turn, stop = await _outcome(completion, specs, tools, format, last=len(turns) + 1 >= max_turns)
            turns.append(turn)
            if not turn.calls:
                answer = format.answer(completion.text)
            if not turn.calls or stop != "answer":
                break
            segments += [completion, format.observed(turn)]
    except PromptTooLongError as limit:
        stop, error = "prompt_limit", str(limit)
    except (PolicyUnavailableError, TransientError) as failure:
        stop, error = "failed", str(failure)
    except asyncio.CancelledError as cancelled:
        if cancelled.args != ("cut",):
            raise
        stop, error = "cut", f"it was cut after {time.perf_counter() - started:.1f} s"
    finally:
        policy.release(session)
        await tools.aclose()
    return Episode(
        id=id,
        task_id=task.id,
        source=source.name,
        policy=policy.name,
        version=policy.version,
        turns=tuple(turns),
        answer=answer,
        stop=stop,
        force=source.force,
        temperature=source.sampling.temperature,
        seed=seed,
        seconds=time.perf_counter() - started,
        error=error,
    )


def _scene(task: Task, source: Source, id: str, seed: int) -> Scene:
    """Where the calls happen: the same whenever the episode is played again. Tools are never told the answer."""
    return Scene(id or f"{task.id}/{source.name}/{seed}", seed, {**task.labels, "prompt": task.prompt})


async def _introduced(task: Task, tools: Session) -> Task:
    """The task with what its environments say on being opened."""
    said = await tools.opening()
    return replace(task, prompt=f"{task.prompt}\n{said}") if said else task


def _request(
    task: Task,
    segments: Sequence[str | Completion],
    turns: Sequence[Turn],
    session: str,
    source: Source,
    format: Format,
    specs: Sequence[ToolSpec],
    seed: int,
) -> Request:
    """The next reply, as it is asked of the policy; the first one may be made to begin with a call or an answer."""
    return Request(
        task=task,
        segments=tuple(segments),
        session=session,
        sampling=source.sampling,
        stop=format.stop,
        prefix=format.forced(source.force, specs) if source.force and not turns else "",
        force=None if turns else source.force,
        turns=tuple(turns),
        seed=derive_seed(seed, len(turns)),
        adapter=source.adapter,
    )


async def _completed(policy: Policy, request: Request) -> Completion:
    """The reply, and what it took where the policy does not say so itself."""
    asked = time.perf_counter()
    completion = await policy.complete(request)
    return completion if completion.seconds else replace(completion, seconds=time.perf_counter() - asked)


async def _outcome(
    completion: Completion, specs: Sequence[ToolSpec], tools: Session, format: Format, *, last: bool
) -> tuple[Turn, StopReason]:
    """The turn that a reply makes, and how the episode ends if this turn is its last."""
    calls = format.parse(completion.text, specs) if completion.calls is None else completion.calls
    observations = await tools.arun_all(calls)
    stop: StopReason = "turn_limit" if calls and last else "answer"
    if completion.finish == "length":
        stop = "token_limit"
    if any(isinstance(call, MalformedCall) and format.gives_up(call) for call in calls):
        stop = "malformed"
    return Turn(completion, calls, observations), stop
