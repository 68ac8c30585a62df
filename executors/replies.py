"""Replies of a model, kept in a file: what was paid for once is not asked again."""

import asyncio
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from executors.budget import Usage
from executors.endpoint import Endpoint, EndpointClient, Message, Reply
from executors.errors import DataError
from executors.types import MalformedCall, ToolCall


class KeptClient(EndpointClient):
    """An ``EndpointClient`` that gives the same reply to the same request, from its file where it is there.

    A request is the model's name, the messages and every option, the seed among them. Its budget counts what the file
    says was spent before. Several threads may use one; several processes may append to one file.
    """

    def __init__(self, endpoint: Endpoint, path: Path) -> None:
        """
        Args:
            endpoint: that is asked.
            path: of the file, JSON lines; a line that a crash cut is asked again.

        Raises:
            ConfigError: the environment variable with the key is not set.
            DataError: the file cannot be read.
        """
        super().__init__(endpoint)
        self.path = path
        self.recalled = 0
        """Replies that came from the file."""
        self._replies = _read(path)
        self._file_lock = threading.Lock()
        self._under_way: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]]
        self._under_way = weakref.WeakKeyDictionary()
        before = self._budget.spent
        for reply in self._replies.values():
            before = replace(before, usd=before.usd + reply.cost, usage=before.usage + reply.usage)
        self._budget.spent = replace(before, requests=len(self._replies))

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptClient, (self.endpoint, self.path)

    async def chat(self, messages: Sequence[Message], **options: Any) -> Reply:
        """See ``EndpointClient.chat``.

        Raises:
            DataError: the file cannot be written.
        """
        key = _key(self.endpoint.model, messages, options)
        under_way = self._under_way.setdefault(asyncio.get_running_loop(), {})
        async with under_way.setdefault(key, asyncio.Lock()):  # the same request may come twice at once
            if (known := self._replies.get(key)) is not None:
                self.recalled += 1
                return known
            reply = await super().chat(messages, **options)
            self._keep(key, reply)
            return reply

    def _keep(self, key: str, reply: Reply) -> None:
        line = json.dumps({"key": key, **_written(reply)}).encode() + b"\n"
        with self._file_lock:
            self._replies[key] = reply
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    size = os.fstat(file).st_size
                    cut = size > 0 and os.pread(file, 1, size - 1) != b"\n"
                    os.write(file, b"\n" + line if cut else line)
                finally:
                    os.close(file)
            except OSError as error:
                raise DataError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def _key(model: str, messages: Sequence[Message], options: Mapping[str, Any]) -> str:
    asked = json.dumps([model, [dict(message) for message in messages], dict(options)], sort_keys=True, default=str)
    return blake2b(asked.encode(), digest_size=16).hexdigest()


def _written(reply: Reply) -> dict[str, Any]:
    calls = [
        {"malformed": call.text, "error": call.error}
        if isinstance(call, MalformedCall)
        else {"tool": call.tool, "arguments": dict(call.arguments)}
        for call in reply.tool_calls
    ]
    return {
        "text": reply.text,
        "calls": calls,
        "finish": reply.finish,
        "tokens": [reply.usage.prompt, reply.usage.completion],
        "usd": reply.cost,
        "logprobs": reply.logprobs,
    }


def _read(path: Path) -> dict[str, Reply]:
    """The replies of a file by their keys; a line that is none is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    replies: dict[str, Reply] = {}
    for line in lines:
        try:
            row = json.loads(line)
            replies[row["key"]] = _reply(row)
        except (ValueError, TypeError, KeyError):
            continue
    return replies


def _reply(row: Mapping[str, Any]) -> Reply:
    calls = [
        MalformedCall(call["malformed"], call["error"])
        if "malformed" in call
        else ToolCall(call["tool"], call["arguments"])
        for call in row["calls"]
    ]
    logprobs = row["logprobs"]
    return Reply(
        text=row["text"],
        tool_calls=tuple(calls),
        finish=row["finish"],
        usage=Usage(*row["tokens"]),
        cost=row["usd"],
        logprobs=None if logprobs is None else tuple((token, value) for token, value in logprobs),
    )
