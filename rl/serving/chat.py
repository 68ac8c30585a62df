"""A policy behind OpenAI's chat completions: a plain class, which the Ray Serve app and tests hold alike."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from executors.types import ToolCall, ToolSpec
from rl.serving.completions import CompletionRequest, ReplyRequest, TextServer
from rl.serving.execution import Execution, allowed, answered, attempts
from rl.serving.offering import Offering
from rl.serving.protocol import Answered, Asked, answer, ask
from rl.serving.replies import before_stop, counted, envelope, growing, logprobs_of, reply, require_tokens, usage
from rl.serving.wire import ChatRequest
from rollouts.formats import Format
from rollouts.policy import Policy, Request
from rollouts.types import Completion, Sampling

REPLY = Sampling(max_tokens=512)
"""How replies are drawn where a request does not say: greedy, as policies are evaluated."""


class ChatServer:
    """Answers requests with one policy. Those that come at once are decoded together by its engine."""

    def __init__(
        self,
        policy: Policy,
        format: Format,
        specs: Sequence[ToolSpec],
        *,
        sampling: Sampling = REPLY,
        execution: Execution | None = None,
        offering: Offering = Offering(),
    ) -> None:
        """
        Args:
            policy: who replies.
            format: that it was trained to read and write.
            specs: the tools that it was trained with; callers run them.
            sampling: see ``REPLY``.
            execution: runs the tools for callers who ask for it; None where nobody may.
            offering: what else the policy can be offered, and which tools where a request names none.
        """
        self.policy = policy
        self.format = format
        self.specs = tuple(specs)
        self.sampling = sampling
        self.execution = execution
        self.offering = offering
        self._texts = TextServer(policy, sampling)
        self._structures: Any = None

    async def complete(self, asking: ReplyRequest) -> dict[str, Any]:
        """The whole response to a request.

        Raises:
            ChatError: the request cannot be honoured, or the policy could not reply.
        """
        if isinstance(asking, CompletionRequest):
            return await self._texts.complete(asking)
        if asking.apprentice.execute:
            return await self._execute(asking)
        asked = self._ask(asking)
        every = await self._requests(asked, asking.n)
        try:
            completions = await asyncio.gather(*(reply(self.policy, request, "messages") for request in every))
        finally:
            for request in every:
                self.policy.release(request.session)
        choices = [self._choice(index, completion, asked, asking) for index, completion in enumerate(completions)]
        return self._envelope(asking, asked) | {"choices": choices, "usage": usage(completions)}

    def _choice(self, index: int, completion: Completion, asked: Asked, chat: ChatRequest) -> dict[str, Any]:
        answered = answer(completion, asked, self.format)
        message: dict[str, Any] = {"role": "assistant", "content": answered.content}
        if answered.calls:
            message["tool_calls"] = [_wire_call(call) for call in answered.calls]
        message |= _extra(answered)
        told = logprobs_of(completion, self.policy) if chat.logprobs else None
        return {"index": index, "message": message, "logprobs": told, "finish_reason": answered.finish}

    async def _execute(self, chat: ChatRequest) -> dict[str, Any]:
        """The response to a request that has the server run the tools: whole episodes."""
        session = _session()
        playing = attempts(
            chat,
            self.format,
            self.specs,
            self.execution,
            session=session,
            defaults=self.sampling,
            offering=self.offering,
        )
        require_tokens(self.policy, map(int, chat.logit_bias), "logit_bias")
        episodes = await asyncio.gather(*(attempt.play(self.policy, self.format) for attempt in playing))
        told = [answered(episode, attempt) for episode, attempt in zip(episodes, playing, strict=True)]
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": each.content, **_extra(each)},
                "logprobs": None,
                "finish_reason": each.finish,
            }
            for index, each in enumerate(told)
        ]
        turns = [turn.completion for episode in episodes for turn in episode.turns]
        written = sum(len(completion.token_ids) for completion in turns)
        lasts = [episode.turns[-1].completion for episode in episodes]
        read = sum(last.prompt_tokens + len(last.token_ids) for last in lasts) - written
        head = envelope(chat, session, "chat.completion", self.policy)
        return head | {"choices": choices, "usage": counted(max(read, 0), written)}

    async def stream(self, asking: ReplyRequest) -> AsyncGenerator[dict[str, Any]]:
        """The response in chunks, as the reply grows.

        Content is sent as soon as the format says that it belongs to an answer; a call is sent whole, once it is
        complete. What was sent is sent: where the policy takes an answer back after all, the last delta's
        ``apprentice.reply`` tells what it wrote.

        Raises:
            ChatError: before the first chunk, where the request cannot be honoured; later, where the policy fails.
        """
        chunks = self._texts.stream(asking) if isinstance(asking, CompletionRequest) else self._stream(asking)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def _stream(self, chat: ChatRequest) -> AsyncGenerator[dict[str, Any]]:
        if chat.apprentice.execute:
            allowed(chat, self.execution)
        asked = self._ask(chat)
        counting = bool(chat.stream_options and chat.stream_options.include_usage)
        head = self._envelope(chat, asked) | ({"usage": None} if counting else {})
        (request,) = await self._requests(asked, 1)
        sent = ""
        begun = False
        async with aclosing(growing(self.policy, request, "messages")) as texts:
            async for text in texts:
                if isinstance(text, Completion):
                    for delta in self._end(text, asked, chat, sent, begun):
                        yield head | delta
                    if counting:
                        yield head | {"choices": [], "usage": usage([text])}
                    continue
                if not begun:
                    yield head | _delta({"role": "assistant", "content": ""})
                    begun = True
                content = asked.content_so_far(before_stop(text, asked.stop), self.format)
                if len(content) > len(sent):
                    yield head | _delta({"content": content[len(sent) :]})
                    sent = content

    def _end(
        self, completion: Completion, asked: Asked, chat: ChatRequest, sent: str, begun: bool
    ) -> list[dict[str, Any]]:
        """What of a complete reply has not been sent yet, and how it ended."""
        answered = answer(completion, asked, self.format)
        last = _delta(_extra(answered), answered.finish)
        if chat.logprobs:
            last["choices"][0]["logprobs"] = logprobs_of(completion, self.policy)
        return [*map(_delta, _last_deltas(answered, sent, begun)), last]

    def _ask(self, chat: ChatRequest) -> Asked:
        asked = ask(chat, self.format, self.specs, session=_session(), defaults=self.sampling, offering=self.offering)
        require_tokens(self.policy, asked.request.sampling.logit_bias, "logit_bias")
        return asked

    async def _requests(self, asked: Asked, count: int) -> list[Request]:
        """What the policy is asked; each reply that has to follow a schema has a constraint of its own."""
        requests = [one.request for one in asked.choices(count)]
        if asked.schema is None:
            return requests
        constraints = await asyncio.to_thread(self._constraints, asked.schema, count)
        return [replace(one, constraint=each) for one, each in zip(requests, constraints, strict=True)]

    def _constraints(self, schema: Mapping[str, Any], count: int) -> Sequence[Any]:
        """Constraints of as many replies; it may take a second, in a thread."""
        from rl.serving.structured import Structures

        if self._structures is None:
            self._structures = Structures(self.policy)
        return self._structures.constraints(schema, count)

    def _envelope(self, chat: ChatRequest, asked: Asked) -> dict[str, Any]:
        kind = "chat.completion.chunk" if chat.stream else "chat.completion"
        return envelope(chat, asked.request.session, kind, self.policy)


def _session() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def _last_deltas(answered: Answered, sent: str, begun: bool) -> list[dict[str, Any]]:
    """What of a complete reply has not been sent yet."""
    deltas: list[dict[str, Any]] = []
    if not begun:
        deltas.append({"role": "assistant", "content": None if answered.calls else ""})
    content = answered.content or ""
    if len(content) > len(sent) and content.startswith(sent):
        deltas.append({"content": content[len(sent) :]})
    if answered.calls:
        calls = [{"index": index, **_wire_call(call)} for index, call in enumerate(answered.calls)]
        deltas.append({"tool_calls": calls})
    return deltas


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}


def _wire_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call.tool, "arguments": arguments},
    }


def _extra(answered: Answered) -> dict[str, Any]:
    return {"apprentice": answered.extra.model_dump(exclude_defaults=True)}
