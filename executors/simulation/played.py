"""An API that a language model plays, with a memory of its own for each episode (ToolAlpaca's tool executor)."""

import asyncio
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from executors.endpoint import Model, consult
from executors.errors import ConfigError, DataError, TransientError
from executors.http.client import Answer
from executors.openapi.operations import Operation, Reading
from executors.openapi.requests import build_request
from executors.openapi.tools import Api, read_openapi
from executors.simulation.answers import answer_of, refused
from executors.simulation.simulated import digest
from executors.tool import Limits, Tool
from executors.types import Scene

_TASK = """You are the server behind the web API "{title}". Programs send you HTTP requests, and you answer as the \
real service would.

First check the request against the documentation of its operation: the method, and for each parameter whether it \
is known, present where it is required, and of the right type. A request that breaks it is answered with a fitting 4xx \
status and a message that says what is wrong. Any other request succeeds, unless it names something that cannot exist.

A successful response follows the documented schema and looks like real data: concrete names, numbers and dates, no \
placeholders. A list that the request does not limit has at least three items. Stay consistent with everything that \
you answered before: what was created can be found, what was changed stays changed, what was deleted is gone.

Answer with one JSON object and nothing else:
{{"status": <HTTP status>, "response": <the response body, as JSON>, "explanation": "<one sentence: why>"}}"""

_OPERATION = """Operation {name}: {description}
Parameters (JSON Schema): {parameters}
Successful response (JSON Schema): {response}

The request:
{request}"""

_MAX_DOCUMENTATION = 6000
_NO_SERVER = "https://api.example.com"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model, playing an API, says to one request."""

    status: int
    body: Any
    explanation: str = ""


class Recording:
    """Verdicts that were given, by all that led to them; kept in a file of JSON lines where one is named.

    Several threads may use one, and several processes may append to one file.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """
        Args:
            path: of the file; read where it exists, appended to with each new verdict.

        Raises:
            DataError: the file cannot be read, or is not a recording.
        """
        self.path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._verdicts: dict[str, Verdict] = {}
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._verdicts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recording, (self.path,)

    def get(self, key: str) -> Verdict | None:
        return self._verdicts.get(key)

    def add(self, key: str, request: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        row = {"key": key, "request": request, "status": verdict.status, "body": verdict.body}
        line = json.dumps(row | {"explanation": verdict.explanation}, ensure_ascii=False) + "\n"
        with self._lock:
            self._verdicts[key] = verdict
            if self.path is not None:
                self._append(self.path, line.encode(errors="replace"))

    def _append(self, path: Path, line: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _read(self, path: Path) -> None:
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._verdicts[row["key"]] = Verdict(int(row["status"]), row["body"], str(row.get("explanation", "")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: not a recording of a played API ({error}); name another file") from error


@dataclass(slots=True)
class Memory:
    """What was asked and answered in one episode."""

    history: str
    """A digest of all of it."""
    exchanges: list[tuple[str, str]] = field(default_factory=list)
    """Requests with their answers, the oldest left out where they have become too long."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a request is answered: the next one has to know of it."""

    def remember(self, request: str, verdict: Verdict, max_chars: int) -> None:
        """Keep one more exchange, and as many of those before it as there is room for."""
        answer = json.dumps({"status": verdict.status, "response": verdict.body}, ensure_ascii=False)
        self.exchanges.append((request, answer))
        while sum(len(asked) + len(answered) for asked, answered in self.exchanges) > max_chars:
            self.exchanges.pop(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Play:
    """How a model plays an API."""

    rolls: int = 5
    """Replies asked for one request: the first success counts, or the first failure that is repeated."""
    temperature: float = 0.5
    max_tokens: int = 1500
    """Of one reply."""
    max_memory: int = 12_000
    """Characters of earlier requests and answers that the model is shown."""

    def __post_init__(self) -> None:
        if self.rolls < 1 or self.max_tokens < 1 or self.max_memory < 0:
            raise ConfigError("rolls and max_tokens must be at least 1, and max_memory not negative")


class PlayedApi:
    """Answers the calls of an API by asking a model."""

    def __init__(self, api: Api, model: Model | None, play: Play = Play(), recording: Recording | None = None) -> None:
        """
        Args:
            api: as ``read_openapi`` read it.
            model: an ``EndpointClient``, or an async function that answers a chat with text; None answers from the
                recording alone.
            play: see ``Play``.
            recording: keeps the verdicts, and gives them again; by default only until the process ends.
        """
        self.api = api
        self.model = model
        self.play = play
        self.recording = recording if recording is not None else Recording()
        self._operations = {operation.name: operation for operation in api.operations}
        self._validators = {one.name: Draft202012Validator(dict(one.parameters)) for one in api.operations}
        self._digest = digest(api)

    def __reduce__(self) -> tuple[Any, ...]:
        return PlayedApi, (self.api, self.model, self.play, self.recording)

    def open(self, scene: Scene) -> Memory:
        """An empty memory."""
        return Memory(_digest(self._digest, scene.seed))

    async def answer(self, memory: Memory, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Answer one call, and remember it. What breaks the operation's schema is answered with 400, unasked.

        Raises:
            TransientError: the model gave no usable verdict, or cannot be asked.
            BadCallError: the arguments make no request.
        """
        operation = self._operations[name]
        if (refusal := refused(self._validators[name], arguments)) is not None:
            return refusal
        request = _rendered(operation, operation.server or self.api.server or _NO_SERVER, arguments)
        async with memory.lock:
            key = _digest(memory.history, request)
            verdict = self.recording.get(key)
            if verdict is None:
                verdict = await self._roll(memory, operation, request, seed=int(key[:7], 16))
                self.recording.add(key, request, verdict)
            answer = answer_of(verdict.status, verdict.body, operation.answers_in)
            memory.history = _digest(key, answer.status, answer.text)
            memory.remember(request, verdict, self.play.max_memory)
        return answer

    async def _roll(self, memory: Memory, operation: Operation, request: str, seed: int) -> Verdict:
        """Ask until a success, or until a failure is repeated."""
        if self.model is None:
            raise TransientError("the recording has no answer to this request, and there is no model to ask")
        messages = self._messages(memory, operation, request)
        failed: list[Verdict] = []
        unfit: list[Verdict] = []
        problem = ""
        for roll in range(self.play.rolls):
            text = await consult(
                self.model,
                messages,
                temperature=self.play.temperature,
                max_tokens=self.play.max_tokens,
                seed=seed + roll,
                response_format={"type": "json_object"},
            )
            verdict = read_verdict(text)
            if isinstance(verdict, str):
                problem = verdict
            elif 200 <= verdict.status < 300:
                if _fits(operation, verdict):
                    return verdict
                unfit.append(verdict)
            elif any(verdict.status == other.status for other in failed):
                return verdict
            else:
                failed.append(verdict)
        if found := unfit or failed:
            return found[0]
        raise TransientError(
            f"the model that plays {self.api.title!r} gave no verdict in {self.play.rolls} replies: {problem}"
        )

    def _messages(self, memory: Memory, operation: Operation, request: str) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": _TASK.format(title=self.api.title)}]
        for asked, answered in memory.exchanges:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        asked = _OPERATION.format(
            name=operation.name,
            description=" ".join(operation.description.split())[:1000],
            parameters=_short(operation.parameters),
            response=_short(operation.response or {}),
            request=request,
        )
        return [*messages, {"role": "user", "content": asked}]


def read_verdict(text: str) -> Verdict | str:
    """The verdict in a model's reply: its JSON object, whatever stands around it; else what is wrong with it."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return "the reply holds no JSON object"
    try:
        read = json.loads(text[start : end + 1], parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return f"the reply is not JSON: {error}"
    status = read.get("status", read.get("status_code"))
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    if not isinstance(status, int) or not 200 <= status <= 599 or 300 <= status < 400:
        return f"{status!r} is no status that an API ends with"
    if "response" not in read:
        return "the verdict has no response"
    return Verdict(status, read["response"], str(read.get("explanation", ""))[:500])


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _fits(operation: Operation, verdict: Verdict) -> bool:
    return operation.response is None or Draft202012Validator(dict(operation.response)).is_valid(verdict.body)


def _rendered(operation: Operation, server: str, arguments: Mapping[str, Any]) -> str:
    """A request as text, with the address of the real API."""
    request = build_request(operation, server, arguments)
    headers = [f"{name}: {value}" for name, value in request.headers.items()]
    body = request.content.decode(errors="replace")
    return "\n".join([f"{request.method} {request.url}", *headers, *(["", body] if body else [])])


def _short(schema: Mapping[str, Any]) -> str:
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _MAX_DOCUMENTATION else f"{text[:_MAX_DOCUMENTATION]}... (cut)"


def _digest(*parts: Any) -> str:
    return blake2b("\x1f".join(map(str, parts)).encode(errors="surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class _Call:
    """One operation, as a tool's function."""

    api: PlayedApi
    name: str

    async def __call__(self, memory: Memory, /, **arguments: Any) -> str:
        return (await self.api.answer(memory, self.name, arguments)).observed()


def played_tools(
    document: Mapping[str, Any] | str | Path | Api,
    model: Model | None,
    *,
    play: Play = Play(),
    recording: Recording | None = None,
    reading: Reading = Reading(),
    timeout: float = 300.0,
) -> list[Tool]:
    """Tools for every operation of an OpenAPI document, answered by a model that plays the API.

    Args:
        document: see ``read_openapi``; or what it gave.
        model: see ``PlayedApi``.
        play: see ``Play``.
        recording: see ``PlayedApi``.
        reading: how strictly calls are held to the document.
        timeout: seconds for one call, all its replies together.

    Raises:
        DataError: it is not an OpenAPI 3 document, or names no operation.
    """
    played = PlayedApi(
        document if isinstance(document, Api) else read_openapi(document, reading), model, play, recording
    )
    limits = Limits(retries=0, timeout=timeout)
    return [Tool(one.spec, _Call(played, one.name), limits=limits, state=played) for one in played.api.operations]
