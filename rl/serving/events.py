"""What a chat completion tells, as OpenAI's responses tell it: whole, or in events as it grows."""

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from rl.serving.responses import ResponseRequest, as_told

Event = dict[str, Any]


def whole(request: ResponseRequest, completion: Mapping[str, Any]) -> dict[str, Any]:
    """A response.

    Args:
        request: what was asked.
        completion: the chat completion that answers it.
    """
    telling = _Telling(request, completion)
    (choice,) = completion["choices"]
    message = choice["message"]
    telling.logprobs = _logprobs(choice)
    items = [telling.message(message["content"] or "")] if message["content"] is not None else []
    items += [telling.call(call) for call in message.get("tool_calls", ())]
    telling.mark(items, message["apprentice"], choice["finish_reason"])
    return telling.ended(items, choice["finish_reason"], completion["usage"])


class _Telling:
    """One response, as far as it is known."""

    def __init__(self, request: ResponseRequest, completion: Mapping[str, Any]) -> None:
        """
        Args:
            request: what was asked.
            completion: the chat completion that answers it, or its first chunk.
        """
        self.logprobs: list[dict[str, Any]] = []
        self.begun = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": completion["created"],
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": completion["model"],
            "output": [],
            "usage": None,
            "system_fingerprint": completion["system_fingerprint"],
            **as_told(request),
        }

    def message(self, text: str, id: str = "") -> dict[str, Any]:
        """What the policy says."""
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}
        id = id or f"msg_{secrets.token_hex(12)}"
        return {"type": "message", "id": id, "status": "completed", "role": "assistant", "content": [part]}

    def call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """A call that it makes."""
        id = f"fc_{secrets.token_hex(12)}"
        function = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        return {"type": "function_call", "id": id, "status": "completed", "call_id": call["id"], **function}

    def mark(self, items: Sequence[dict[str, Any]], extra: Mapping[str, Any], finish: str) -> None:
        """Let the first item have what OpenAI's fields have no place for, and the last one say whether it was cut."""
        items[0]["apprentice"] = extra
        items[-1]["status"] = "incomplete" if finish == "length" else "completed"

    def ended(self, items: Sequence[dict[str, Any]], finish: str, usage: Mapping[str, int]) -> dict[str, Any]:
        """The response in the end."""
        cut = finish == "length"
        return self.begun | {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": list(items),
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
        }


async def events(
    request: ResponseRequest, first: Mapping[str, Any], chunks: AsyncIterator[tuple[int, Mapping[str, Any]]]
) -> AsyncIterator[Event]:
    """A response in events, as it grows; one that fails ends with ``response.failed``.

    Args:
        request: what was asked.
        first: chunk of the chat completion that answers it.
        chunks: the others, each with its HTTP status; the last one has the usage.
    """
    growing = _Growing(request, first)
    for event in growing.begin():
        yield event
    for event in growing.grow(first):
        yield event
    async for status, chunk in chunks:
        if status != 200:
            yield growing.failed(chunk["error"]["message"])
            return
        for event in growing.grow(chunk):
            yield event
    for event in growing.end():
        yield event


class _Growing:
    """The events of one response, numbered."""

    def __init__(self, request: ResponseRequest, first: Mapping[str, Any]) -> None:
        self._telling = _Telling(request, first)
        self._items: list[dict[str, Any]] = []
        self._calls: list[Mapping[str, Any]] = []
        self._text = ""
        self._id = f"msg_{secrets.token_hex(12)}"
        self._number = -1
        self._begun = False
        self._finish = "stop"
        self._extra: Mapping[str, Any] = {}
        self._usage: Mapping[str, int] = {}

    def begin(self) -> Iterator[Event]:
        yield self._event("response.created", response=self._telling.begun)
        yield self._event("response.in_progress", response=self._telling.begun)

    def grow(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """The events of one chunk."""
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if delta.get("content"):
                yield from self._say(delta["content"])
            self._calls += delta.get("tool_calls", ())
            self._extra = delta.get("apprentice", self._extra)
            self._finish = choice["finish_reason"] or self._finish
            self._telling.logprobs = _logprobs(choice) or self._telling.logprobs

    def end(self) -> Iterator[Event]:
        """What remains to be told once there are no more chunks."""
        if not self._begun and not self._calls:
            yield from self._open()
        said = [self._telling.message(self._text, self._id)] if self._begun else []
        items = [*said, *map(self._telling.call, self._calls)]
        self._telling.mark(items, self._extra, self._finish)
        for item in items:
            yield from self._close(item) if item in said else self._call(item)
        response = self._telling.ended(self._items, self._finish, self._usage)
        yield self._event(f"response.{response['status']}", response=response)

    def failed(self, message: str) -> Event:
        """The last event of a response that fails."""
        error = {"code": "server_error", "message": message}
        response = self._telling.begun | {"status": "failed", "error": error, "output": self._items}
        return self._event("response.failed", response=response)

    def _say(self, delta: str) -> Iterator[Event]:
        if not self._begun:
            yield from self._open()
        self._text += delta
        yield self._event("response.output_text.delta", **self._part(), delta=delta, logprobs=[])

    def _open(self) -> Iterator[Event]:
        self._begun = True
        empty = self._telling.message("", self._id)
        item = empty | {"status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._part(), part=empty["content"][0])

    def _close(self, item: dict[str, Any]) -> Iterator[Event]:
        done = {"text": self._text, "logprobs": self._telling.logprobs}
        yield self._event("response.output_text.done", **self._part(), **done)
        yield self._event("response.content_part.done", **self._part(), part=item["content"][0])
        self._items.append(item)
        yield self._event("response.output_item.done", output_index=0, item=item)

    def _call(self, item: dict[str, Any]) -> Iterator[Event]:
        """A call comes whole, so that its arguments are one piece."""
        place = {"item_id": item["id"], "output_index": len(self._items)}
        begun = item | {"status": "in_progress", "arguments": ""}
        yield self._event("response.output_item.added", output_index=len(self._items), item=begun)
        yield self._event("response.function_call_arguments.delta", **place, delta=item["arguments"])
        told = {"arguments": item["arguments"], "name": item["name"]}
        yield self._event("response.function_call_arguments.done", **place, **told)
        self._items.append(item)
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)

    def _part(self) -> dict[str, Any]:
        return {"item_id": self._id, "output_index": 0, "content_index": 0}

    def _event(self, type: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": type, "sequence_number": self._number, **fields}


def _logprobs(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (choice.get("logprobs") or {}).get("content") or []
