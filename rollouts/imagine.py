"""From a tool and what is remembered of it to a new query: by its schema alone, or by a model.

The schema imaginer means a call and says it in words, so that what it asks is known to be possible, and the answer can
be verified. It looks for what was not seen yet: a parameter, a choice, an optional argument left out, an error. Its
values come from the schema's examples, from calls that worked, and from what the tool said when it refused.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from executors.endpoint import Model
from executors.errors import DataError
from executors.schemas.fabricate import fabricate_arguments, fits
from executors.types import ToolCall, ToolSpec
from rollouts.memory import Memory, Trial
from rollouts.metered import Metered
from rollouts.phrasing import phrase
from rollouts.values import candidates, varied

Arguments = dict[str, Any]
_TRIES = 12
_ODD = ("", "???", "0", "-1", "nobody", "99999999", "2024-02-31")
"""Texts that most tools refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagined:
    """A query, and the call that it means, where whoever imagined it meant one."""

    query: str
    call: ToolCall | None = None
    tokens: int = 0
    cost: float = 0.0


class Imaginer(Protocol):
    """Thinks of what a user could ask of a tool."""

    name: str

    async def imagine(self, spec: ToolSpec, memory: Memory, recent: Sequence[Trial], seed: int) -> Imagined | None:
        """One query; None where nothing new comes to mind.

        Args:
            spec: the tool.
            memory: what was tried with it before, as far as it may be known; the trials of this sitting included.
            recent: the trials of this sitting, in order.
            seed: settles every choice.
        """
        ...


class SchemaImaginer:
    """Writes varied queries from a tool's schema, with no model."""

    name = "schema"

    def __init__(
        self, *, max_similarity: float = 0.9, errors: float = 0.05, calls: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """
        Args:
            max_similarity: to any query that is remembered; what is nearer is imagined anew.
            errors: share of the queries that mean a call which the tool is likely to refuse; none at 0.
            calls: the part of all calls that may be meant, each having its place between 0 and 1: imaginers of parts
                that do not meet never mean the same call, so that one can hold out what another must not show. A
                call without arguments may be meant by all.
        """
        self.max_similarity = max_similarity
        self.errors = errors
        self.calls = calls

    async def imagine(self, spec: ToolSpec, memory: Memory, recent: Sequence[Trial], seed: int) -> Imagined | None:
        """The newest of a few that come to mind; None where all of them were tried nearly so before."""
        best: tuple[float, Imagined] | None = None
        missing = memory.coverage().missing
        low, high = self.calls
        for attempt in range(round(_TRIES / (high - low))):
            draw = random.Random(f"imagine/{spec.name}/{seed}/{attempt}")
            arguments = self._arguments(spec, memory, missing, draw)
            if arguments is None or not self._may_mean(arguments):
                continue
            imagined = Imagined(query=phrase(spec, arguments, draw), call=ToolCall(spec.name, arguments))
            near = memory.nearest(imagined.query)
            if near <= self.max_similarity:
                return imagined
            if best is None or near < best[0]:
                best = near, imagined
        return best[1] if best is not None and best[0] < 1 else None

    def _arguments(
        self, spec: ToolSpec, memory: Memory, missing: Sequence[str], draw: random.Random
    ) -> Arguments | None:
        """Arguments that the schema accepts and that show something new, if anything is left to be shown."""
        properties: Mapping[str, Any] = spec.parameters.get("properties", {})
        required = set(spec.parameters.get("required", ()))
        aim = draw.choice(missing) if missing and draw.random() < 0.5 else ""
        chosen = [name for name in properties if name in required or self._is_given(name, aim, draw)]
        try:
            arguments = fabricate_arguments(_narrowed(spec.parameters, chosen), draw.getrandbits(32), optional=1.0)
        except DataError:
            return None
        refused = bool(arguments) and (draw.random() < self.errors or (aim == "!" and draw.random() < 0.3))
        refused = refused and self.errors > 0
        spoiled = draw.choice(sorted(arguments)) if refused else ""
        answered = memory.answered()
        like = draw.choice(answered) if answered and draw.random() < 0.5 else {}
        for name in arguments:
            schema = properties.get(name, {})
            if name == spoiled and (odd := [value for value in _ODD if fits(value, schema)]):
                values: Sequence[Any] = odd
            elif name in like and draw.random() < 0.5:
                values = [varied(like[name], draw)]
            else:
                values = candidates(properties, name, memory, draw)
            if values := [value for value in values if fits(value, schema)]:
                arguments[name] = draw.choice(values)
        name, equals, value = aim.partition("=")
        if equals and name in arguments:
            arguments[name] = {"true": True, "false": False}.get(value, value)
        return arguments

    def _may_mean(self, arguments: Arguments) -> bool:
        low, high = self.calls
        return not arguments or low <= random.Random(f"place/{sorted(arguments.items())}").random() < high

    def _is_given(self, name: str, aim: str, draw: random.Random) -> bool:
        if aim in (f"-{name}", f"+{name}"):
            return aim[0] == "+"
        return aim.startswith(f"{name}=") or draw.random() < 0.4


def _narrowed(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A schema of these properties alone, all of them required."""
    properties = schema.get("properties", {})
    own = {name: properties[name] for name in names}
    return {**schema, "properties": own, "required": list(names), "additionalProperties": False}


_EXPLORE = (
    "Below is the documentation of one tool. Think of a user who could be helped by a single call of it, and write "
    "what that user would say: natural, specific, with every detail that the call needs, in one or two sentences. Do "
    "not name the tool and do not solve the request.\n\n{docs}\n"
)
_FOLLOW_UP = (
    "You have now seen how the tool behaves. Write what another user would ask, so that we learn more of what it can "
    "and cannot do: other parameters, other values, what went wrong before.\n"
)
_PAST = (
    "\nThese have been asked before. Ask something that differs from all of them, and prefer what is like those that "
    "were not solved:\n{block}\n"
)
_ASKED = "User Query:"


class ModelImaginer:
    """Asks a model, as STE does: documentation first, then the sitting so far, then what was asked before."""

    name = "model"

    def __init__(
        self, model: Model, *, temperature: float = 1.0, max_tokens: int = 360, max_similarity: float = 0.9
    ) -> None:
        """
        Args:
            model: answers a chat.
            temperature: of its sampling.
            max_tokens: of a reply.
            max_similarity: see ``SchemaImaginer``; a query that is nearer is asked for again, up to three times.
        """
        self.model = model
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_similarity = max_similarity

    async def imagine(self, spec: ToolSpec, memory: Memory, recent: Sequence[Trial], seed: int) -> Imagined | None:
        """One query; what is remembered is shown for this question only, and is no part of the sitting."""
        messages = imagining(spec, memory, recent)
        model = Metered(self.model)
        for attempt in range(3):
            said = await model(
                messages,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                stop=("Thought:",),
                seed=seed + attempt,
            )
            query = said.rpartition(_ASKED)[2].strip().strip('"')
            if query and memory.nearest(query) <= self.max_similarity:
                return Imagined(query=query, tokens=model.tokens, cost=model.cost)
        return None


def imagining(spec: ToolSpec, memory: Memory, recent: Sequence[Trial]) -> list[dict[str, str]]:
    """The chat that a model is asked for a query with."""
    docs = f"{spec.name}: {spec.description}\nParameters: {dict(spec.parameters)}"
    messages = [{"role": "user", "content": _EXPLORE.format(docs=docs)}]
    for trial in recent:
        told = "; ".join(seen.content[:300] for attempt in trial.attempts for seen in attempt.observations)
        messages.append({"role": "assistant", "content": f"{_ASKED} {trial.task.prompt}"})
        messages.append(
            {"role": "user", "content": f"It was tried, and this came back: {told or 'nothing'}.\n{_FOLLOW_UP}"}
        )
    last = messages[-1]["content"]
    past = _PAST.format(block=memory.block()) if len(memory) > len(recent) else ""
    messages[-1] = {"role": "user", "content": f"{last}{past}\n{_ASKED}"}
    return messages
