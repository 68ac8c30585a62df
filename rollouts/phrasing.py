"""Queries in words, from a tool's description and the arguments that are meant; and the same query in other words."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from executors.types import ToolCall, ToolSpec

MAX_PURPOSE = 90
"""Characters of what a tool is for."""

_SENTENCE_END = re.compile(r"(?<=[a-z0-9)])[.:;](?:\s|$)|\n|\s\(")
_VERBS = frozenset(
    """add adds access analyse ask calculate change check compute convert converts count create decide delete describe
    determine evaluate explain fetch find generate generates get gets give gives list look lookup make measure obtain
    provide provides query read remove replace retrieve return returns reverse run search select send shorten show
    sort split summarise take tell translate turn update verify write""".split()  # noqa: SIM905
)
_SINGULAR = {"adds": "add", "converts": "convert", "generates": "generate", "gets": "get", "gives": "give"}
_SINGULAR |= {"provides": "provide", "returns": "return"}

_TO_DO = (
    "Please {do}.",
    "Can you {do}?",
    "Could you {do} for me?",
    "I need you to {do}.",
    "I would like to {do}.",
    "{Do}.",
    "Help me {do}, please.",
    "How do I {do}? Do it for me.",
    "{Do}, would you?",
    "My task is to {do}.",
)
_TO_KNOW = (
    "I want to know this: {do}.",
    "What do you find for: {do}?",
    "Please give me the following: {do}.",
    "Tell me about this: {do}.",
    "Can you look this up? It is about: {do}.",
    "I am interested in the following: {do}.",
    "{Do}, please.",
    "Do you have this: {do}?",
)
_GIVEN = (
    "{ask} {Values}.",
    "{Values}. {ask}",
    "{ask} Use {values}.",
    "With {values}: {ask}",
    "{ask} Take {values}.",
    "Given {values}, here is what I ask. {ask}",
    "{ask} Here is what I have: {values}.",
)
_VALUE = ("{name} {value}", "{name} = {value}", "{name}: {value}", "{value} as {name}", "the {name} is {value}")
_WRAPPED = (
    "{query}",
    "Hi! {query}",
    "Hello. {query}",
    "{query} Thanks!",
    "Quick question: {query}",
    "I have a request. {query}",
    "{query} I would be grateful.",
    "One more thing: {query}",
    "Good morning! {query}",
    "{query} Please be exact.",
    "Please help. {query}",
    "For my work: {query}",
    "A friend asked me this. {query}",
    "{query} Just the result, please.",
)
STYLES = len(_TO_DO) * len(_GIVEN) * len(_VALUE)
"""Ways to say one thing."""


def phrase(spec: ToolSpec, arguments: Mapping[str, Any], draw: random.Random) -> str:
    """A query that means a call: every value stands in it, and the tool's name does not.

    Args:
        spec: the tool that is meant.
        arguments: that are meant.
        draw: settles the words.
    """
    purpose = purpose_of(spec)
    asks = _TO_DO if purpose.split(" ", 1)[0] in _VERBS else _TO_KNOW
    ask = draw.choice(asks).format(do=purpose, Do=purpose[:1].upper() + purpose[1:])
    if not arguments:
        return ask
    style = draw.choice(_VALUE)
    names = list(arguments)
    draw.shuffle(names)
    said = _joined([style.format(name=_spoken(name), value=written(arguments[name])) for name in names])
    start = said if style.startswith("{value}") else said[:1].upper() + said[1:]
    return draw.choice(_GIVEN).format(ask=ask, values=said, Values=start)


def rephrased(query: str, call: ToolCall | None, spec: ToolSpec, draw: random.Random) -> str:
    """The same query in other words.

    Where it is known which call is meant, and the query has all of its values, it is said anew; else what stands around
    the query changes.
    """
    if call is not None and all(written(value) in query for value in call.arguments.values()) and draw.random() < 0.75:
        return draw.choice(_WRAPPED).format(query=phrase(spec, call.arguments, draw))
    return draw.choice(_WRAPPED[1:]).format(query=query)


def purpose_of(spec: ToolSpec) -> str:
    """What a tool is for, as a few words that a sentence can go on with: convert an amount from one unit to another."""
    text = " ".join(spec.description.split()) or " ".join(_spoken(spec.name).split())
    first = _SENTENCE_END.split(text, maxsplit=1)[0].strip(" .:;,") or text
    if len(first) > MAX_PURPOSE:
        first = first[:MAX_PURPOSE].rsplit(" ", 1)[0]
    head, _, rest = first.partition(" ")
    word = _SINGULAR.get(head.lower(), head.lower())
    if word in _VERBS or (head[:1].isupper() and head[1:].islower()):
        return f"{word} {rest}".strip()
    return first


def written(value: Any) -> str:
    """A value as a query has it: a policy has to be able to copy it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _spoken(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").replace("-", " ").strip().lower()


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
