"""Requests to an API in a user's words: made up from plans, or asked of a model; cleaned, and kept apart by rules."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from executors.corpus.modelled import UnusableReplyError
from executors.corpus.toolset import GET_DETAILS
from executors.endpoint import Model, consult
from executors.schemas.vocabulary import Draw, words
from rollouts.plans import Plan, PlannedCall, Planner

Style = Literal["short", "story"]
"""``short``: one or two sentences. ``story``: up to five, with the occasion that the request comes from."""

_NUMBER = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*")
_PAIRS = ('""', "''", "“”", "‘’", "``")
_WORD = re.compile(r"[a-z0-9']+")
_ENDS = re.compile(r"[.!?]+(?:\s|$)")

_PROMPTS: Mapping[Style, str] = {
    "short": (
        "Write {count} requests that people could make of an assistant that has the functions below. Each has one or "
        "two sentences. Mix questions, commands and plain statements, and begin each with other words. Do not name "
        "the service or a function. Give concrete names, places, dates and numbers, and leave out no value that a "
        "function needs. At least half of them should take two functions or more. Write one request to a line, "
        "numbered, and nothing else."
    ),
    "story": (
        "Write {count} requests that people could make of an assistant that has the functions below. Each tells in at "
        "most five sentences why somebody wants something, and then asks for it. Do not name the service or a "
        "function. Give concrete names, places, dates and numbers, and leave out no value that a function needs. At "
        "least half of them should take two functions or more. Write one request to a line, numbered, and nothing "
        "else."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One request."""

    text: str
    plan: Plan | None = None
    """The calls that serve it, where they are known."""

    @property
    def gold(self) -> list[dict[str, str]]:
        """The expected calls, as ToolAlpaca writes them."""
        return [call.gold() for call in self.plan.calls] if self.plan else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which requests are kept."""

    style: Style = "short"
    max_alike: float = 0.75
    """Share of their words that two requests may have in common."""
    max_openings: int = 3
    """Requests of one API that may begin with the same two words."""

    def fault(self, text: str, kept: Sequence[str], names: Iterable[str]) -> str:
        """What is wrong with a request; empty where nothing is.

        Args:
            text: of the request.
            kept: those that the API has already.
            names: of the API and its functions, which no request may say.
        """
        sentences = [part for part in _ENDS.split(text) if part.strip()]
        most = 2 if self.style == "short" else 5
        said = _said(text)
        if len(said) < 4:
            return "it has fewer than four words"
        if len(sentences) > most:
            return f"it has {len(sentences)} sentences, and {most} are the most"
        if named := next((name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.I)), ""):
            return f"it names {named}"
        openings = Counter(tuple(_said(one)[:2]) for one in kept)
        if openings[tuple(said[:2])] >= self.max_openings:
            return f"{self.max_openings} others begin with {' '.join(said[:2])!r}"
        if any(_alike(said, _said(one)) > self.max_alike for one in kept):
            return "another one says nearly the same"
        return ""


def cleaned(text: str) -> list[str]:
    """The requests in a model's reply: a line each, without its number and the quotes around it."""
    lines = []
    for line in text.splitlines():
        line = _NUMBER.sub("", line).strip()
        for pair in _PAIRS:
            if len(line) > 1 and line[0] == pair[0] and line[-1] == pair[1] and pair[0] not in line[1:-1]:
                line = line[1:-1].strip()
        if line:
            lines.append(line)
    return lines


def planned_instructions(
    name: str, planner: Planner, count: int, *, style: Style = "short", rules: Rules | None = None
) -> list[Instruction]:
    """Requests made up from plans, without a model; fewer where the rules leave no more.

    Args:
        name: of the API, which no request says.
        planner: of the API.
        count: how many.
        style: of them.
        rules: by which they are kept.
    """
    rules = rules or Rules(style=style)
    kept: list[Instruction] = []
    for number in range(8 * count):
        if len(kept) == count:
            break
        plan = planner.plan(number)
        text = phrased(plan, planner.draw.at("words", number), style)
        if not rules.fault(text, [one.text for one in kept], (name, *planner.operations)):
            kept.append(Instruction(text=text, plan=plan))
    return kept


async def asked_instructions(
    model: Model, record: Mapping[str, Any], count: int, *, style: Style = "short", seed: int = 0, tries: int = 4
) -> list[Instruction]:
    """Requests that a model writes for an API record; it is told what was wrong with those that were left out.

    Raises:
        UnusableReplyError: the model wrote none that the rules allow.
        TransientError: it cannot be asked.
    """
    rules = Rules(style=style)
    names = (str(record["Name"]), *record["Function_Projection"])
    messages = [
        {"role": "system", "content": _PROMPTS[style].format(count=count)},
        {"role": "user", "content": f"{record.get('Introduction', '')}\n\nFunctions:\n{record['NLDocumentation']}"},
    ]
    kept: list[str] = []
    faults: list[str] = []
    for attempt in range(tries):
        reply = await consult(model, messages, temperature=0.5, max_tokens=2000, seed=seed + attempt)
        faults = []
        for text in cleaned(reply):
            fault = rules.fault(text, kept, names)
            faults += [f"{text[:80]!r}: {fault}"] if fault else []
            kept += [] if fault else [text]
        if len(kept) >= count:
            return [Instruction(text=text) for text in kept[:count]]
        told = "\n".join(faults[:10])
        more = f"Write {count - len(kept)} more, all different from these. These were left out:\n{told or 'none'}"
        messages = [*messages[:2], {"role": "assistant", "content": reply}, {"role": "user", "content": more}]
    if kept:
        return [Instruction(text=text) for text in kept]
    raise UnusableReplyError(
        f"no request for {record['Name']} that the rules allow: {'; '.join(faults[:3]) or 'none at all'}"
    )


_ASKING = ("Could you", "Can you", "Would you please", "Will you", "Are you able to", "Could somebody")
_TELLING = ("Please", "I want you to", "I need you to", "Go and", "Kindly", "For me,")
_STATING = (
    "My task for today is to",
    "It would help me to",
    "What I need is to",
    "The plan is to",
    "I have to",
    "We want to",
)
_OCCASIONS = (
    "My sister called me about this last night.",
    "I am preparing a talk for my class and still lack a few facts.",
    "We move house next week, and there is a lot to arrange.",
    "My boss wants to see the figures before noon.",
    "A friend and I have a bet that we have to settle.",
    "I have been putting this off for far too long.",
    "Our club meets on Friday, and I promised to bring something new.",
    "I read about it on the train and became curious.",
)
_THEN = ("and then", "and after that", "and when you have it,", "then")


def phrased(plan: Plan, draw: Draw, style: Style = "short") -> str:
    """A plan in a user's words: every value that the calls need is said, but for what the user keeps back."""
    calls = [call for call in plan.calls if call.tool != GET_DETAILS]
    parts = [_part(call, plan, draw.at(place), follows=place > 0) for place, call in enumerate(calls)]
    wish = f" {draw.at('then').pick(_THEN)} ".join(parts)
    form = draw.at("form").share()
    if form < 0.4:
        text = f"{draw.at('opening').pick(_ASKING)} {wish}?"
    elif form < 0.75:
        text = f"{draw.at('opening').pick(_TELLING)} {wish}."
    else:
        text = f"{draw.at('opening').pick(_STATING)} {wish}."
    return f"{draw.at('occasion').pick(_OCCASIONS)} {text}" if style == "story" else text


def _part(call: PlannedCall, plan: Plan, draw: Draw, *, follows: bool) -> str:
    """One call in words: what its name says, and its arguments."""
    named = words(call.tool)
    told = {name: value for name, value in call.arguments.items() if name not in plan.left_out}
    taken = [name for name, value in told.items() if isinstance(value, str) and value.startswith("${")]
    said = " ".join(named)
    if taken and follows:
        said = f"{said} of the first one"
    shown = [(name, value) for name, value in told.items() if name not in taken]
    return f"{said} {draw.at('with').pick(['with', 'for', 'with'])} {_listed(shown, draw)}" if shown else said


def _listed(arguments: Sequence[tuple[str, Any]], draw: Draw) -> str:
    link = draw.at("is").pick([" ", " ", " as "]) if len(arguments) == 1 else " "
    parts = [f"{' '.join(words(name))}{link}{_value(value)}" for name, value in arguments]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _alike(left: Sequence[str], right: Sequence[str]) -> float:
    """Words in common, of all words of either."""
    one, other = set(left), set(right)
    return len(one & other) / max(1, len(one | other))
