"""Episodes that the server plays for a chat request: its policy calls, its executor runs, and all of it is told.

Off unless the server was started with it. The request's last user message is the task; the loop is the one that
training plays (``rollouts.episode``), with the executor's limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from executors.executor import Executor
from executors.types import MalformedCall, Observation, ToolCall, ToolSpec
from rl.serving.offering import Offering
from rl.serving.protocol import Answered, Asked, ask
from rl.serving.wire import ChatError, ChatRequest, Extra
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.policy import Policy, Source
from rollouts.types import Episode, Force, Sampling, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What a server runs tools with."""

    executor: Executor
    """Of the tools that the policy was trained with."""
    max_turns: int = 4
    """Replies with calls after which an episode ends without an answer; a request may ask for fewer."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An episode that is about to be played."""

    asked: Asked
    execution: Execution
    max_turns: int
    force: Force | None

    async def play(self, policy: Policy, format: Format) -> Episode:
        """Let the policy attempt it.

        Raises:
            ChatError: the policy or an environment could not be reached, or the question is too long.
        """
        request = self.asked.request
        source = Source(name="serve", policy=policy.name, sampling=request.sampling, force=self.force)
        episode = await play(
            request.task,
            policy,
            self.execution.executor,
            format,
            source=source,
            id=request.session,
            seed=request.seed,
            max_turns=self.max_turns,
        )
        if episode.stop == "failed":
            raise ChatError(episode.error, status=503, code="policy_unavailable")
        if episode.stop == "prompt_limit" and not episode.turns:
            raise ChatError(episode.error, param="messages", code="context_length_exceeded")
        return episode


def attempts(
    chat: ChatRequest,
    format: Format,
    specs: Sequence[ToolSpec],
    execution: Execution | None,
    *,
    session: str,
    defaults: Sampling,
    offering: Offering = Offering(),
) -> list[Attempt]:
    """The episodes that a request asks for, as many as it wants choices.

    Args:
        chat: the request; where it offers no tools, those are meant that a question is offered by default.
        format: how the policy was trained to read and write.
        specs: the tools that it was trained with.
        execution: what runs them; None where nobody may ask for that.
        session: of the request.
        defaults: how replies are drawn where the request does not say.
        offering: which tools are meant where the request names none; others cannot be run here.

    Raises:
        ChatError: the request cannot be honoured, and why.
    """
    execution = allowed(chat, execution)
    most = chat.apprentice.max_turns or execution.max_turns
    if most > execution.max_turns:
        raise ChatError(f"this server allows {execution.max_turns} turns", param="apprentice.max_turns")
    if "tools" not in chat.model_fields_set:
        chat = chat.model_copy(update={"apprentice": chat.apprentice.model_copy(update={"every_tool": True})})
    own = replace(offering, others=False)
    asked = ask(chat, format, specs, session=session, defaults=defaults, offering=own)
    if len(asked.request.segments) > 1:
        raise ChatError("an episode begins with a question; leave out the calls after it", param="messages")
    force: Force | None = "call" if asked.offered and asked.request.prefix else None if asked.offered else "direct"
    return [Attempt(one, execution, most, force) for one in asked.choices(chat.n)]


_ONE_REPLY = {"stream": "streamed", "stop": "cut", "logprobs": "told", "response_format": "constrained"}
"""By field, what is done to one reply, and cannot be done to an episode."""


def allowed(chat: ChatRequest, execution: Execution | None) -> Execution:
    """What runs the tools for a request that asks for it.

    Raises:
        ChatError: nothing does, or the request asks for what only one reply can be asked for.
    """
    if execution is None:
        raise ChatError(
            "this server runs no tools for its callers; it was started without --execute",
            status=403,
            param="apprentice.execute",
            code="execution_disabled",
        )
    for field, done in _ONE_REPLY.items():
        if getattr(chat, field) and field in chat.model_fields_set:
            raise ChatError(
                f"{field!r} goes with one reply; an episode that the server plays cannot be {done} so",
                param=field,
                code="unsupported_value",
            )
    if not chat.parallel_tool_calls:
        raise ChatError("calls of an episode run as the policy makes them", param="parallel_tool_calls")
    return execution


def answered(episode: Episode, attempt: Attempt) -> Answered:
    """What to tell of an episode: the answer, if it came to one, and all that led to it."""
    finish: Literal["stop", "length"] = "stop" if episode.stop in ("answer", "malformed") else "length"
    last = episode.turns[-1].completion
    told = {
        "stop": episode.stop,
        "version": episode.version,
        "seconds": round(episode.seconds, 6),
        "turns": [_turn(turn) for turn in episode.turns],
    }
    extra = Extra(reply=last.text, unread_messages=attempt.asked.unread, episode=told)
    return Answered(episode.answer, (), finish, extra)


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "reply": turn.completion.text,
        "tokens": len(turn.completion.token_ids),
        "seconds": round(turn.completion.seconds, 6),
        "calls": [_call(call) for call in turn.calls],
        "observations": [_observation(observation) for observation in turn.observations],
    }


def _call(call: ToolCall | MalformedCall) -> dict[str, Any]:
    if isinstance(call, MalformedCall):
        return {"malformed": call.text, "error": call.error}
    return {"tool": call.tool, "arguments": dict(call.arguments)}


def _observation(seen: Observation) -> dict[str, Any]:
    told = {"content": seen.content, "status": seen.status, "seconds": round(seen.seconds, 6)}
    return told | {"attempts": seen.attempts}
