"""The only episode loop: complete, parse, run, observe, until an answer or a limit."""

import asyncio
import itertools
import time

from executors.errors import TransientError
from executors.executor import Executor
from rollouts.formats import Format
from rollouts.policy import Policy, PolicyUnavailableError, PromptTooLongError, Source
from rollouts.steps import completed, introduced, next_request, outcome, scene_of
from rollouts.types import Completion, Episode, Task, Turn

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
        The episode, with what its environments say it is worth. It never raises for what a policy writes or a tool
        does. Where the policy or an environment cannot be reached, the episode's stop reason is ``failed``; where the
        policy cannot read any more, ``prompt_limit``; where the play is cancelled with the message ``cut``, it is
        ``cut``, and the turns so far are kept.
    """
    source = source or Source(name=policy.name, policy=policy.name)
    specs = executor.catalog.specs(task.tools)
    session = f"{task.id}/{source.name}/{seed}/{next(_ATTEMPTS)}"
    tools = executor.open(scene_of(task, source, id, seed), task.tools)
    segments: list[str | Completion] = []
    turns: list[Turn] = []
    answer, worth, error = None, None, ""
    started = time.perf_counter()
    try:
        task = await introduced(task, tools)
        segments.append(format.opening(task, specs))
        while True:
            asked = next_request(task, segments, turns, session, source, format, specs, seed)
            completion = await completed(policy, asked)
            turn, stop = await outcome(completion, specs, tools, format, last=len(turns) + 1 >= max_turns)
            turns.append(turn)
            answer = None if turn.calls else format.answer(completion.text)
            if not turn.calls or stop != "answer":
                break
            segments += [completion, format.observed(turn)]
        worth = await tools.reward() if executor.judged else None
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
        environment_reward=worth,
    )
