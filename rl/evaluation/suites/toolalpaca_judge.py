"""ToolAlpaca's judge: a model that is shown the expected calls and an attempt, and says what of it is right."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executors.endpoint import Model, consult
from executors.errors import TransientError
from executors.types import MalformedCall
from rollouts.types import Episode

_TASK = """Below are the documentation of a web API, what somebody asked of an assistant, the calls that are \
expected, and what the assistant did. Judge what it did.

The process is right where every expected call was made, in any sensible order. Arguments that a function requires, \
and those that the request speaks of, have to agree in meaning with the expected ones; others may differ. What the \
expected calls leave open, such as ${id from search}, is to be what an earlier call gave. Trying again after a \
failure, asking the user and reading a long answer from its file are fine; other calls that have nothing to do with \
the request are not. Keys that say who is calling are expected of no call.

The final response is right where it answers the request and says what the calls gave, and nothing that they did not; \
where a call failed for good, where it says so."""

_END = """## Analysis
<a few sentences>

## Results
Process Correctness: <Yes, No or Uncertain>
Final Response Correctness: <Yes, No or Uncertain>"""

_VERDICT = re.compile(
    r"## Results.*?Process Correctness: *(Yes|No|Uncertain)\b.*?Final Response Correctness: *"
    r"(Yes|No|Uncertain)\b",
    re.DOTALL,
)
_TRIES = 3
_MAX_DOCUMENTATION = 24_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An attempt with what it is judged by."""

    documentation: str
    instruction: str
    gold: Sequence[Mapping[str, str]]
    """The expected calls, as a record has them: ``{"Action", "Action_Input"}``."""
    episode: Episode

    @property
    def text(self) -> str:
        """What the judge is shown, in the layout of the published prompts."""
        expected = [f"{call['Action']}\nParameters: {call['Action_Input']}" for call in self.gold]
        gold = "\n".join(f"{number}. Function: {one}" for number, one in enumerate(expected, start=1))
        made = "\n".join(_solution(self.episode))
        return (
            f"{_TASK}\n\n## Documentation\n{self.documentation[:_MAX_DOCUMENTATION]}\n\n## Task Instruction\n"
            f"{self.instruction}\n\n## Standard Answer\n{gold}\n\n## AI Assistant's Solution\n{made}\n\n"
            f"Write your judgement in this form:\n\n{_END}"
        )


def _solution(episode: Episode) -> list[str]:
    """The steps of an attempt, numbered; the last is its answer."""
    told = []
    for call, seen in zip(episode.calls, episode.observations, strict=True):
        name, given = ("", call.text) if isinstance(call, MalformedCall) else (call.tool, _json(call.arguments))
        told.append(f"Function: {name}\nParameters: {given}\nReturns: {seen.content}")
    told.append(f"Final Response: {episode.answer or ''}")
    return [f"{number}. {one}" for number, one in enumerate(told, start=1)]


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments), ensure_ascii=False)


async def judged(model: Model, case: Case, place: int, *, seed: int = 0) -> dict[str, Any]:
    """A row as ToolAlpaca's judged files have them; one without a call or an answer is an error, and not shown.

    Args:
        model: the judge.
        case: what is judged.
        place: of the row among those of its API.
        seed: of its sampling.

    Raises:
        TransientError: the judge cannot be asked, or gave no verdict in several replies.
    """
    if not case.episode.calls or not case.episode.answer:
        return {
            "id": place,
            "input": "",
            "output": "",
            "process_correctness": "",
            "final_response_correctness": "",
        }
    shown = [{"role": "user", "content": case.text}]
    reply = ""
    for attempt in range(_TRIES):
        reply = await consult(model, shown, temperature=0.2, max_tokens=1000, seed=seed + attempt)
        if found := _VERDICT.search(reply):
            verdicts = {"process_correctness": found[1], "final_response_correctness": found[2]}
            return {"id": place, "input": shown, "output": reply, **verdicts}
    raise TransientError(f"the judge gave no verdict in {_TRIES} replies; the last ends {reply[-120:]!r}")
