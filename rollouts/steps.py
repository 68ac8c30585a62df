"""The steps that an attempt is made of: ask for a reply, read it, run what it calls.

``rollouts.episode`` strings them into one attempt, ``rollouts.search`` into many that begin alike.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

from executors.session import Session
from executors.types import MalformedCall, Scene, ToolSpec
from rollouts.formats import Format
from rollouts.policy import Policy, Request, Source, derive_seed
from rollouts.types import Completion, StopReason, Task, Turn


def scene_of(task: Task, source: Source, id: str, seed: int) -> Scene:
    """Where the calls happen: the same whenever the episode is played again. Tools are never told the answer."""
    return Scene(id or f"{task.id}/{source.name}/{seed}", seed, {**task.labels, "prompt": task.prompt})


async def introduced(task: Task, tools: Session) -> Task:
    """The task with what its environments say on being opened."""
    said = await tools.opening()
    return replace(task, prompt=f"{task.prompt}\n{said}") if said else task


def next_request(
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


async def completed(policy: Policy, request: Request) -> Completion:
    """The reply, and what it took where the policy does not say so itself."""
    asked = time.perf_counter()
    completion = await policy.complete(request)
    return completion if completion.seconds else replace(completion, seconds=time.perf_counter() - asked)


async def outcome(
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
