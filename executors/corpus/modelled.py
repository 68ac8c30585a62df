"""APIs written by a language model: an introduction, a list of functions, an OpenAPI document, which is validated."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from executors.corpus.entries import Entry
from executors.corpus.records import Record, api_record
from executors.endpoint import Message, Reply
from executors.errors import ApprenticeError, ConfigError, DataError, TransientError
from executors.openapi.documents import load_document
from executors.openapi.tools import read_openapi

_EXAMPLE = "Harbour Almanac"
"""The API of the worked example; a reply that names it was copied."""

_INTRODUCTION = f"""Introduce a web API in one paragraph of at most 300 words: what it is for and who uses it, and \
then, numbered, what it offers. Here is one for the API "{_EXAMPLE}", whose list entry says "Tides and harbours":

The {_EXAMPLE} gives skippers what they need before they leave or enter a harbour. It offers: 1) Find harbours by \
country and depth. 2) Get the facilities of one harbour. 3) Get the times of high and low water of a harbour on a day. \
4) Report that a facility is out of order."""

_FUNCTIONS = """List the functions of the API that is introduced below, at most {most}. Each takes few inputs and \
gives back a bounded amount; none returns everything there is. Where a function takes an id, another one finds it. \
Write each as

1. Name: <name in camelCase>
   Description: <one sentence>
   Input: <one line of JSON: {{"input": "Required or Optional. Type. What it is"}}>
   Output: <one sentence>

and nothing else."""

_DOCUMENT = """Write the OpenAPI 3.0 document, as JSON, of the API whose functions are listed below. Each function is \
one operation with its name as operationId; inputs with few possible values have an enum; each operation has one \
successful response with a schema for application/json. Leave out tags and examples. Indent with one blank. Write the \
JSON and nothing else."""

_CONTINUE = "You were cut off. Go on exactly where you stopped, without repeating anything."


class UnusableReplyError(TransientError):
    """A model was asked as often as it may be, and wrote nothing that can be used: asking again will not help."""


class ChatModel(Protocol):
    """A model that says how its reply ended, as ``EndpointClient`` does."""

    @property
    def chat(self) -> Callable[..., Awaitable[Reply]]:
        """Answers a chat: ``await chat(messages, **options)``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """How much a model may try."""

    attempts: int = 5
    """At a document, each told what was wrong with the one before."""
    turns: int = 4
    """Pieces of one reply that is cut, at most."""
    max_tokens: int = 2000
    """Of one piece."""
    max_functions: int = 8
    at_once: int = 4
    """APIs written at the same time."""

    def __post_init__(self) -> None:
        if min(self.attempts, self.turns, self.max_tokens, self.max_functions, self.at_once) < 1:
            raise ConfigError("attempts, turns, max_tokens, max_functions and at_once are all at least 1")


@dataclass(frozen=True, slots=True)
class Failed:
    """An API that could not be written."""

    name: str
    reason: str
    unusable: bool = True
    """Whether the model wrote nothing usable; else it could not be asked, and may be asked again."""


class ModelWriter:
    """Writes the records of APIs by asking a model three times for each."""

    def __init__(self, model: ChatModel, writing: Writing = Writing(), *, seed: int = 0) -> None:
        """
        Args:
            model: an ``EndpointClient``, or anything that chats like one.
            writing: how much it may try.
            seed: of its sampling.
        """
        self.model = model
        self.writing = writing
        self.seed = seed

    async def write(self, entry: Entry) -> Record:
        """The record of one API.

        Raises:
            UnusableReplyError: the model wrote nothing usable in all its attempts.
            ApprenticeError: it cannot be asked.
        """
        introduction = await self._text(_INTRODUCTION, _told(entry), temperature=1.0, check=_copied)
        task = _FUNCTIONS.format(most=self.writing.max_functions)
        functions = await self._text(task, introduction, temperature=0.3, check=_no_functions)
        document = await self._document(entry, functions)
        return api_record(entry, introduction, functions, document)

    async def write_all(
        self, entries: Sequence[Entry], done: Callable[[Record], Awaitable[None] | None] | None = None
    ) -> tuple[list[Record], list[Failed]]:
        """The records of several APIs, and those that could not be written; one that fails leaves the others alone.

        Args:
            entries: of the list.
            done: told each record as soon as it is there, so that it can be kept.
        """
        gate = asyncio.Semaphore(self.writing.at_once)

        async def one(entry: Entry) -> Record | Failed:
            async with gate:
                try:
                    record = await self.write(entry)
                except ApprenticeError as error:
                    return Failed(entry.name, str(error), isinstance(error, UnusableReplyError))
            if done is not None and (waiting := done(record)) is not None:
                await waiting
            return record

        written = await asyncio.gather(*map(one, entries))
        return (
            [each for each in written if not isinstance(each, Failed)],
            [each for each in written if isinstance(each, Failed)],
        )

    async def _text(self, task: str, given: str, *, temperature: float, check: Callable[[str], str]) -> str:
        messages = [{"role": "system", "content": task}, {"role": "user", "content": given}]
        fault = ""
        for attempt in range(self.writing.attempts):
            text = (await self._whole(messages, temperature, attempt)).strip()
            if not (fault := check(text)):
                return text
        raise UnusableReplyError(f"no usable reply in {self.writing.attempts} attempts: {fault}")

    async def _document(self, entry: Entry, functions: str) -> dict[str, Any]:
        """A document that the reader takes; the model is told what was wrong with the one before."""
        first = [{"role": "system", "content": _DOCUMENT}, {"role": "user", "content": functions}]
        messages: list[dict[str, str]] = first
        fault = ""
        for attempt in range(self.writing.attempts):
            text = await self._whole(messages, 0.3, attempt)
            try:
                return usable_document(text, entry)
            except DataError as error:
                fault = str(error)
            told = f"This document cannot be used: {fault}\nWrite all of it again without this fault."
            messages = [*first, {"role": "assistant", "content": text[-6000:]}, {"role": "user", "content": told}]
        raise UnusableReplyError(f"no usable document in {self.writing.attempts} attempts: {fault}")

    async def _whole(self, messages: Sequence[Message], temperature: float, attempt: int) -> str:
        """A reply, asked to go on where it was cut."""
        text = ""
        for turn in range(self.writing.turns):
            further = [
                {"role": "assistant", "content": text},
                {"role": "user", "content": _CONTINUE},
            ]
            reply = await self.model.chat(
                [*messages, *(further if text else ())],
                temperature=temperature,
                max_tokens=self.writing.max_tokens,
                seed=self.seed + 100 * attempt + turn,
            )
            text += reply.text
            if reply.finish != "length":
                break
        return text


def usable_document(text: str, entry: Entry) -> dict[str, Any]:
    """The OpenAPI document in a model's reply, with the entry's title and server where it has none.

    Raises:
        DataError: it is none, or one with parts that cannot be used; with what is wrong.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise DataError("the reply holds no JSON object; write the document as JSON")
    document = load_document(text[start : end + 1])
    if _EXAMPLE.lower() in json.dumps(document).lower():
        raise DataError(f"it documents {_EXAMPLE}, which was only an example")
    api = read_openapi(document)
    if api.warnings:
        raise DataError("; ".join(api.warnings[:5]))
    _require_sound(document)
    info = document.get("info")
    document["info"] = {"title": entry.name, "version": "1.0.0", **(info if isinstance(info, Mapping) else {})}
    if not document.get("servers"):
        document["servers"] = [{"url": entry.link or "https://api.example.com"}]
    return document


def _require_sound(document: Mapping[str, Any]) -> None:
    """What the reader forgives and a corpus should not have. Raises DataError."""
    names: list[str] = []
    for path, item in document["paths"].items():
        for method, node in item.items():
            if not isinstance(node, Mapping) or "responses" not in node:
                continue
            place = f"{method.upper()} {path}"
            if not isinstance(node.get("operationId"), str):
                raise DataError(f"{place} has no operationId; give it the function's name")
            names.append(node["operationId"])
            if not any(str(code).startswith("2") for code in node["responses"]):
                raise DataError(f"{place} has no successful response; add one with a schema")
    if repeated := next((name for name in names if names.count(name) > 1), ""):
        raise DataError(f"two operations are called {repeated!r}; an operationId is unique")
    if not names:
        raise DataError("no operation has responses; give each one")


def _told(entry: Entry) -> str:
    return f'The API "{entry.name}" of the category {entry.category}. Its list entry says: {entry.description}'


def _copied(text: str) -> str:
    if _EXAMPLE.lower() in text.lower():
        return f"it introduces {_EXAMPLE}, which was only an example"
    return "" if len(text.split()) >= 5 else "it has fewer than five words"


def _no_functions(text: str) -> str:
    return "" if "Name:" in text else "it lists no function"
