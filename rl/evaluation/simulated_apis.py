"""How well a policy serves requests to simulated APIs, judged by rule: its calls, and what it says of what they gave.

The calls are right as ToolAlpaca's rule judge has it. The answer is right where it is the one that the expected
attempt comes to in the same world: what these answers say follows from the calls alone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from executors.corpus.toolset import api_executor
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ScriptedUser
from executors.types import MalformedCall
from rewards.process import Instruction as Told
from rewards.process import Level, Step, process_correct, read_gold
from rl.evaluation.intervals import Ratio
from rollouts.formats.toolalpaca import ToolAlpacaFormat
from rollouts.instances import MAX_TURNS, attempted, tasks_of
from rollouts.instructions import Instruction
from rollouts.policy import Policy, Source
from rollouts.types import Episode, Group, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request with all that judging it takes."""

    task: Task
    simulation: Simulation
    gold: tuple[Step, ...]
    told: Told
    answer: str
    """What the expected attempt comes to."""
    beside: tuple[Simulation, ...] = ()
    """Other APIs whose functions are offered too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is right about one attempt."""

    procedure: bool
    response: bool
    answered: bool
    function: bool
    """Whether its first call is of the function that is expected first."""
    calls: int
    good_calls: int
    """Calls that the API took."""

    @property
    def overall(self) -> bool:
        return self.procedure and self.response

    @property
    def reward(self) -> float:
        """1.15 for all of it, .75 for the calls alone, a little for the right function and for an answer at all."""
        return 0.6 * self.procedure + 0.4 * self.overall + 0.1 * self.function + 0.05 * self.answered


def judge(request: Request, episode: Episode, level: Level = "mentioned") -> Judgement:
    """Judge an attempt by rule."""
    made = steps_of(episode)
    answered = episode.stop == "answer" and bool(episode.answer)
    return Judgement(
        procedure=answered and process_correct(request.gold, made, request.told, level),
        response=answered and (episode.answer or "").strip() == request.answer.strip(),
        answered=answered,
        function=bool(made) and made[0].tool == request.gold[0].tool,
        calls=len(episode.calls),
        good_calls=sum(observation.ok for observation in episode.observations),
    )


def steps_of(episode: Episode) -> list[Step]:
    """The calls of an attempt, as the rule judge takes them; what was no call and came to nothing is left out."""
    made = [
        Step("", None) if isinstance(call, MalformedCall) else Step(call.tool, dict(call.arguments))
        for call in episode.calls
    ]
    return [step for step, seen in zip(made, episode.observations, strict=True) if step.tool or seen.ok]


def ratios(judged: Sequence[Judgement]) -> dict[str, Ratio]:
    """The figures of some attempts: shares of requests, and of calls those that the API took."""
    return {
        "procedure": Ratio([float(one.procedure) for one in judged]),
        "response": Ratio([float(one.response) for one in judged]),
        "overall": Ratio([float(one.overall) for one in judged]),
        "answered": Ratio([float(one.answered) for one in judged]),
        "first_function": Ratio([float(one.function) for one in judged]),
        "good_calls": Ratio([float(one.good_calls) for one in judged], [float(one.calls) for one in judged]),
    }


def requests_of(
    name: str,
    simulation: Simulation,
    instructions: Sequence[Instruction],
    gold: Mapping[str, Group],
    required: Mapping[str, Sequence[str]],
    beside: Sequence[Simulation] = (),
) -> list[Request]:
    """Requests to one API, ready to be judged.

    Args:
        name: of the API.
        simulation: of it.
        instructions: with their plans.
        gold: by task id, the expected attempt.
        required: by function, the parameters that it requires.
        beside: other APIs whose functions are offered too, as in the expected attempts.
    """
    tools = list(next(iter(gold.values())).task.tools) if gold else []
    return [
        Request(
            task=task,
            simulation=simulation,
            gold=tuple(read_gold(call["Action"], call["Action_Input"]) for call in one.gold),
            told=Told(text=one.text, required={name: tuple(keys) for name, keys in required.items()}),
            answer=gold[task.id].episodes[0].answer or "",
            beside=tuple(beside),
        )
        for task, one in zip(tasks_of(name, instructions, tools), instructions, strict=True)
    ]


def play_requests(
    requests: Sequence[Request],
    policy: Policy,
    format: ToolAlpacaFormat,
    *,
    source: Source,
    seed: int,
    at_once: int = 16,
    max_turns: int = MAX_TURNS,
) -> list[Group]:
    """Let a policy attempt requests, each in the world that the expected attempt was made in."""
    return asyncio.run(_played(requests, policy, format, source, seed, at_once, max_turns))


async def _played(
    requests: Sequence[Request],
    policy: Policy,
    format: ToolAlpacaFormat,
    source: Source,
    seed: int,
    at_once: int,
    max_turns: int,
) -> list[Group]:
    gate = asyncio.Semaphore(at_once)
    executors = {
        id(one.simulation): api_executor(one.simulation, ScriptedUser(), beside=one.beside) for one in requests
    }

    async def attempt(one: Request) -> Group:
        async with gate:
            executor = executors[id(one.simulation)]
            return await attempted(one.task, policy, executor, format, source=source, seed=seed, max_turns=max_turns)

    return list(await asyncio.gather(*map(attempt, requests)))
