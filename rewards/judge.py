"""Whether an explored attempt is worth learning from: STE's three criteria, by a rule or by a model.

An attempt passes where its answer says something, says what the tool said, and came from the right call. A rule can
tell where the call that the query means is known. That nothing failed is no success: most calls run, wrong ones too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from executors.endpoint import Model
from executors.types import Observation, ToolCall, ToolSpec
from rewards.arguments import same_arguments
from rollouts.types import Episode, Task

Criterion = Literal["informative", "faithful", "appropriate"]
CRITERIA: tuple[Criterion, ...] = ("informative", "faithful", "appropriate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge found of one attempt."""

    informative: bool
    """It answers the query rather than saying that it cannot."""
    faithful: bool
    """It says what the tool said."""
    appropriate: bool
    """The right tool was called, with the arguments that the query asks for."""
    reasons: tuple[str, ...] = ()
    """Why not, where it is not."""
    judge: str = "rule"

    @property
    def passed(self) -> bool:
        return self.informative and self.faithful and self.appropriate


def by_rule(task: Task, attempt: Episode, truth: Observation | None = None) -> Verdict | None:
    """What can be verified without a model; None where the query's own call is not known.

    Args:
        task: the query, with the call that it means.
        attempt: judged by its last call that was answered.
        truth: what the meant call gives, where it was run: another call that gives the same is as good.
    """
    if task.gold is None:
        return None
    call, seen = _last(attempt)
    reasons: list[str] = []
    if call is None or seen is None:
        reasons.append("it made no call that could be read")
        return Verdict(informative=False, faithful=False, appropriate=False, reasons=tuple(reasons))
    meant = call.tool == task.gold.tool and _same(call.arguments, task.gold.arguments)
    equal = truth is not None and truth.ok and seen.ok and truth.content == seen.content and call.tool == task.gold.tool
    if not (meant or equal):
        reasons.append(f"it called {call.tool} with {dict(call.arguments)}, and the query means {task.gold}")
    if not seen.ok:
        reasons.append(f"the call failed: {seen.content[:200]}")
    faithful = attempt.answer is None or _says(attempt.answer, seen.content)
    if not faithful:
        reasons.append("its answer does not say what the tool said")
    return Verdict(informative=seen.ok, faithful=faithful, appropriate=meant or equal, reasons=tuple(reasons))


def _last(attempt: Episode) -> tuple[ToolCall | None, Observation | None]:
    """The last call that was answered, else the last that could be read."""
    pairs = [
        (call, seen)
        for turn in attempt.turns
        for call, seen in zip(turn.calls, turn.observations, strict=True)
        if isinstance(call, ToolCall)
    ]
    answered = [pair for pair in pairs if pair[1].ok]
    return (answered or pairs or [(None, None)])[-1]


def _same(given: Mapping[str, Any], meant: Mapping[str, Any]) -> bool:
    return same_arguments(given, meant, "reject")


def _says(answer: str, content: str) -> bool:
    """Whether an answer has what the tool said, or, of a long text, its beginning."""
    normal = " ".join(answer.casefold().split())
    return " ".join(content.casefold().split())[:80] in normal


_ASK = """\
A user asked something, and an assistant called a tool to answer it. Judge the attempt by three criteria:
informative: the answer gives the user what was asked for, and is no refusal or excuse.
faithful: everything in the answer is supported by what the tool returned.
appropriate: the tool is the right one for the request, and its arguments are what the user said.
Reply with one JSON object and nothing else:
{{"informative": true or false, "faithful": true or false, "appropriate": true or false, "reason": "one sentence"}}

Tool: {tool}
User: {query}
Calls and what they returned:
{steps}
Answer: {answer}
"""
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "schema": {
            "type": "object",
            "properties": {**{name: {"type": "boolean"} for name in CRITERIA}, "reason": {"type": "string"}},
            "required": [*CRITERIA, "reason"],
            "additionalProperties": False,
        },
    },
}


async def by_model(
    model: Model, spec: ToolSpec, task: Task, attempt: Episode, *, structured: bool = True, max_tokens: int = 512
) -> Verdict | None:
    """What a model finds at temperature 0; None where its reply cannot be read, twice.

    Args:
        model: answers a chat.
        spec: the tool that was explored.
        task: the query.
        attempt: the attempt.
        structured: whether to ask the endpoint to hold the reply to a schema.
        max_tokens: of the reply.

    Raises:
        ApprenticeError: the model cannot be reached.
    """
    messages = [{"role": "user", "content": judging(spec, task, attempt)}]
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens}
    for _ in range(2):
        said = await model(messages, **options, **({"response_format": _SCHEMA} if structured else {}))
        if (verdict := read_verdict(said)) is not None:
            return verdict
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": "Only the JSON object, please."},
        ]
    return None


def judging(spec: ToolSpec, task: Task, attempt: Episode) -> str:
    """What a judge is asked."""
    steps = [
        f"{call.tool} {json.dumps(dict(call.arguments), ensure_ascii=False)} -> {seen.content}"
        for turn in attempt.turns
        for call, seen in zip(turn.calls, turn.observations, strict=True)
        if isinstance(call, ToolCall)
    ]
    return _ASK.format(
        tool=f"{spec.name}: {spec.description}",
        query=task.prompt,
        steps="\n".join(steps) or "none",
        answer=attempt.answer or "none",
    )


def read_verdict(said: str) -> Verdict | None:
    """The verdict in a model's reply; None where there is none. A criterion that is not told true is not met."""
    start, end = said.find("{"), said.rfind("}")
    try:
        told = json.loads(said[start : end + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, Mapping) or not all(isinstance(told.get(name), bool) for name in CRITERIA):
        return None
    reason = str(told.get("reason", "")).strip()
    return Verdict(
        informative=told["informative"],
        faithful=told["faithful"],
        appropriate=told["appropriate"],
        reasons=(reason,) if reason else (),
        judge="model",
    )
