"""The only episode loop: complete, parse, run, observe, until an answer or a limit."""

import itertools
import time
from collections.abc import Sequence

from executors.executor import Executor
from executors.types import ToolSpec
from rollouts.formats import Format
from rollouts.policy import Policy, PolicyUnavailableError, Request, Source, derive_seed
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
        seed: of the sampling; an episode depends on it and on nothing else that is random.
        max_turns: calls after which an episode ends without an answer.

    Returns:
        The episode. It never raises for what a policy writes or a tool does; where the policy itself cannot be
        reached, the episode's stop reason is ``failed``.
    """
    source = source or Source(name=policy.name, policy=policy.name)
    specs = executor.catalog.specs(task.tools)
    session = f"{task.id}/{source.name}/{seed}/{next(_ATTEMPTS)}"
    segments: list[str | Completion] = [format.opening(task, specs)]
    turns: list[Turn] = []
    answer: str | None = None
    stop: StopReason
    error = ""
    started = time.perf_counter()
    try:
        while True:
            request = _request(task, segments, session, source, format, specs, derive_seed(seed, len(turns)))
            completion = await policy.complete(request)
            turn, stop = await _outcome(completion, specs, executor, format)
            turns.append(turn)
            if turn.observation is None:
                answer = format.answer(completion.text)
                break
            if stop == "token_limit":
                break
            if len(turns) >= max_turns:
                stop = "turn_limit"
                break
            segments += [completion, format.observed(turn.observation)]
    except PolicyUnavailableError as failure:
        stop, error = "failed", str(failure)
    finally:
        policy.release(session)
    return Episode(
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


def _request(
    task: Task,
    segments: Sequence[str | Completion],
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
        prefix=format.forced(source.force, specs) if source.force and len(segments) == 1 else "",
        seed=seed,
    )


async def _outcome(
    completion: Completion, specs: Sequence[ToolSpec], executor: Executor, format: Format
) -> tuple[Turn, StopReason]:
    """The turn that a reply makes, and how the episode ends if this turn is its last."""
    call = format.parse(completion.text, specs)
    stop: StopReason = "token_limit" if completion.finish == "length" else "answer"
    if call is None:
        return Turn(completion), stop
    return Turn(completion, call, await executor.arun(call)), stop
