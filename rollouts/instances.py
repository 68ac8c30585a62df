"""Attempts at requests to one API by three parties: a user, an assistant, and what answers in the API's place."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from executors.corpus.toolset import GET_DETAILS, Backend, api_executor
from executors.errors import DataError
from executors.executor import Executor
from executors.schemas.vocabulary import words
from executors.tools.get_details import ModelUser, ScriptedUser
from executors.types import MalformedCall, ToolCall, ToolSpec
from rollouts.episode import play
from rollouts.formats.toolalpaca import ToolAlpacaFormat
from rollouts.instructions import Instruction
from rollouts.plans import Plan, PlannedCall, result_of, settled
from rollouts.policy import Policy, PolicyUnavailableError, Request, Source
from rollouts.types import Completion, Group, Task

MAX_TURNS = 15
"""Calls after which an attempt ends without an answer."""
_LIST = "'Action Input' cannot be a list. Only call one function per action."
_NO_JSON = "Invalid JSON format. Please ensure 'Action Input' is a valid JSON object."
_SHOWN = 3


class CorpusFormat(ToolAlpacaFormat):
    """ToolAlpaca's format with what the corpus says to calls that are none, word for word."""

    def parse(self, text: str, specs: Sequence[ToolSpec]) -> tuple[ToolCall | MalformedCall, ...]:
        calls = super().parse(text, specs)
        return tuple(self._said(call, text, specs) for call in calls)

    def _said(self, call: ToolCall | MalformedCall, text: str, specs: Sequence[ToolSpec]) -> ToolCall | MalformedCall:
        if isinstance(call, ToolCall):
            names = [spec.name for spec in specs]
            if call.tool in names:
                return call
            told = f"`{call.tool}` is not a valid action. The action must be one of [{', '.join(names)}]."
            return MalformedCall(text, told)
        _, found, given = text.rpartition(self.action_input)
        if not found:
            return call
        return MalformedCall(text, _LIST if given.lstrip(' "').startswith("[") else _NO_JSON)


class ScriptedAssistant:
    """Follows the plan of each task: makes its calls, with what earlier ones gave, and says what came of them."""

    def __init__(self, plans: Mapping[str, Plan], format: ToolAlpacaFormat, name: str = "script") -> None:
        """
        Args:
            plans: by task id.
            format: in which replies are written.
            name: of the policy.
        """
        self.name = name
        self.version = 0
        self._plans = plans
        self._format = format

    async def complete(self, request: Request) -> Completion:
        plan = self._plans.get(request.task.id)
        if plan is None:
            raise PolicyUnavailableError(f"{self.name} has no plan for task {request.task.id!r}")
        pairs = [(turn.calls[0], turn.observations[0].content) for turn in request.turns if turn.calls]
        observed = {call.tool: content for call, content in pairs if isinstance(call, ToolCall)}
        place = len(request.turns)
        failed = [turn.observations[0].content for turn in request.turns if not turn.observations[0].ok]
        if failed:
            return self._final(f"I could not do this: {failed[-1]}", "This cannot be done.")
        if place == len(plan.calls):
            return self._final(summary(plan, observed), "I know all that was asked for.")
        call = plan.calls[place]
        try:
            arguments = settled(call, observed)
        except DataError:
            return self._final("I found nothing that fits your request.", "There is nothing to go on with.")
        return Completion(text=f" {_thought(call, arguments)}{self._called(call, arguments)}", finish="stop")

    def release(self, session: str) -> None:
        """Nothing is kept for an episode."""

    def load(self, weights: Mapping[str, Any], version: int) -> None:
        raise DataError(f"{self.name} follows plans and has no weights to load")

    def _called(self, call: PlannedCall, arguments: Mapping[str, Any]) -> str:
        return self._format.write_call(ToolCall(call.tool, arguments), [])

    def _final(self, answer: str, thought: str) -> Completion:
        return Completion(text=f" {thought}{self._format.write_answer(answer)}", finish="end")


def summary(plan: Plan, observed: Mapping[str, str]) -> str:
    """What the calls of a plan gave, in a few sentences that say nothing else."""
    return " ".join(_told(observed.get(one.tool, "")) for one in plan.calls if one.tool != GET_DETAILS)


def tasks_of(name: str, instructions: Sequence[Instruction], tools: Sequence[str]) -> list[Task]:
    """Requests as tasks, numbered as ToolAlpaca's instances are; what only the user knows is among the labels."""
    return [
        Task(
            id=f"{name}-{number}",
            prompt=one.text,
            tools=tuple(tools),
            labels={"api": name, **({"details": one.plan.details} if one.plan and one.plan.details else {})},
        )
        for number, one in enumerate(instructions, start=1)
    ]


async def generate(
    name: str,
    instructions: Sequence[Instruction],
    backend: Backend,
    *,
    assistant: Policy | None = None,
    user: ScriptedUser | ModelUser | None = None,
    format: ToolAlpacaFormat | None = None,
    source: Source | None = None,
    seed: int = 0,
    at_once: int = 32,
    max_turns: int = MAX_TURNS,
    beside: Sequence[Backend] = (),
) -> list[Group]:
    """Let an assistant attempt every request to an API; each attempt has a world and a user of its own.

    An attempt that fails is kept, with why, and the others go on.

    Args:
        name: of the API.
        instructions: the requests.
        backend: what answers in the API's place.
        assistant: who attempts; by default one that follows the plans.
        user: who is asked for details; by default the one that says what the plan holds.
        format: how attempts are written.
        source: how the assistant is sampled.
        seed: of the worlds and of the sampling.
        at_once: attempts under way at the same time.
        max_turns: calls of one attempt at most.
        beside: other APIs whose functions are offered too.
    """
    format = format or CorpusFormat()
    executor = api_executor(backend, user or ScriptedUser(), beside=beside)
    tasks = tasks_of(name, instructions, [spec.name for spec in executor.catalog.specs()])
    plans = {task.id: one.plan for task, one in zip(tasks, instructions, strict=True) if one.plan is not None}
    policy = assistant or ScriptedAssistant(plans, format)
    gate = asyncio.Semaphore(at_once)

    async def attempt(task: Task) -> Group:
        async with gate:
            return await attempted(task, policy, executor, format, source=source, seed=seed, max_turns=max_turns)

    return list(await asyncio.gather(*map(attempt, tasks)))


async def attempted(
    task: Task,
    policy: Policy,
    executor: Executor,
    format: ToolAlpacaFormat,
    *,
    source: Source | None = None,
    seed: int = 0,
    max_turns: int = MAX_TURNS,
) -> Group:
    """One attempt at a request."""
    id = f"{task.id}/{policy.name}/{seed}"
    episode = await play(task, policy, executor, format, source=source, id=id, seed=seed, max_turns=max_turns)
    return Group(task, (episode,))


def _thought(call: PlannedCall, arguments: Mapping[str, Any]) -> str:
    if call.tool == GET_DETAILS:
        return "Something is missing from the request, and I ask for it."
    doing = f"I need to {' '.join(words(call.tool))}."
    taken = [name for name, value in call.arguments.items() if arguments[name] != value]
    if not taken:
        return doing
    return f"The {' '.join(words(taken[0]))} of the first one is {arguments[taken[0]]}. {doing}"


def _told(observation: str) -> str:
    result = result_of(observation)
    items = _items(result)
    if items is None:
        said = _fields(result)
        return f"This is what came of it: {said}." if said else "It is done."
    if not items:
        return "Nothing was found."
    first = _fields(items[0]) or json.dumps(items[0], ensure_ascii=False)
    return f"{len(items)} found, the first one with {first}."


def _items(result: Any) -> list[Any] | None:
    """The list that an answer is about; None where it is about one thing."""
    if isinstance(result, list):
        return result
    lists = [value for value in result.values() if isinstance(value, list)] if isinstance(result, Mapping) else []
    return lists[0] if len(lists) == 1 else None


def _fields(thing: Any) -> str:
    """The first few plain fields of a thing, in words."""
    if not isinstance(thing, Mapping):
        return "" if thing is None else str(thing)
    plain = [(name, value) for name, value in thing.items() if isinstance(value, str | int | float)]
    said = [
        f"{' '.join(words(name))} {json.dumps(value) if isinstance(value, bool) else value}" for name, value in plain
    ]
    return ", ".join(said[:_SHOWN]).rstrip(".")
