"""What every way of asking a policy for replies has in common: errors, growing texts, log-probabilities, counts."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from rl.serving.wire import Asking, ChatError
from rollouts.policy import Policy, PolicyUnavailableError, PromptTooLongError, Request
from rollouts.types import Completion


async def reply(policy: Policy, request: Request, param: str) -> Completion:
    """One reply.

    Args:
        policy: who replies.
        request: what is asked.
        param: the field that is at fault where the prompt is too long.

    Raises:
        ChatError: there is none.
    """
    try:
        return await policy.complete(request)
    except PromptTooLongError as error:
        raise ChatError(str(error), param=param, code="context_length_exceeded") from error
    except PolicyUnavailableError as error:
        raise ChatError(str(error), status=503, code="policy_unavailable") from error


async def growing(policy: Policy, request: Request, param: str) -> AsyncGenerator[str | Completion]:
    """A reply's text as it grows, again and again, and at last the reply. Where it is closed early, it ends the reply.

    Raises:
        ChatError: there is none; see ``reply``.
    """
    texts: asyncio.Queue[str | None] = asyncio.Queue()
    whole = asyncio.ensure_future(reply(policy, replace(request, on_text=texts.put_nowait), param))
    whole.add_done_callback(lambda _: texts.put_nowait(None))
    try:
        while (text := await texts.get()) is not None:
            yield text
        yield await whole
    finally:
        whole.cancel()
        with suppress(asyncio.CancelledError, ChatError):
            await whole
        policy.release(request.session)


def before_stop(text: str, stops: Sequence[str]) -> str:
    """What of a growing text cannot become part of a stop string any more."""
    for stop in stops:
        if (at := text.find(stop)) >= 0:
            text = text[:at]
    held = max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
    return text[: len(text) - held]


def require_tokens(policy: Policy, ids: Iterable[int], param: str) -> None:
    """See that a policy has the tokens that a request speaks of.

    Raises:
        ChatError: it has not, or has no tokens at all.
    """
    known = len(getattr(policy, "tokenizer", None) or ())
    strange = next((id for id in ids if not 0 <= id < known), None)
    if strange is not None:
        there = f"has the tokens from 0 to {known - 1}" if known else "takes no tokens"
        raise ChatError(f"{param!r} speaks of token {strange}, and {policy.name} {there}", param=param)


def logprobs_of(completion: Completion, policy: Policy) -> dict[str, Any]:
    """Each token of a reply with its log-probability, in the form of OpenAI's chat completions.

    Raises:
        ChatError: the policy writes no tokens.
    """
    tokenizer = getattr(policy, "tokenizer", None)
    if tokenizer is None or len(completion.logprobs) != len(completion.token_ids):
        raise ChatError(f"{policy.name} tells no log-probabilities", param="logprobs", code="unsupported_value")

    def told(id: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.decode([id])
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    tops = completion.top_logprobs or ((),) * len(completion.token_ids)
    rows = zip(completion.token_ids, completion.logprobs, tops, strict=True)
    return {
        "content": [told(id, logprob) | {"top_logprobs": [told(*one) for one in top]} for id, logprob, top in rows],
        "refusal": None,
    }


def usage(completions: Sequence[Completion]) -> dict[str, int]:
    """Tokens as the policy counts them, of replies with what they were made to begin with; the prompt counts once."""
    return counted(completions[0].prompt_tokens, sum(len(completion.token_ids) for completion in completions))


def counted(read: int, written: int) -> dict[str, int]:
    """Tokens in OpenAI's form."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def envelope(asking: Asking, session: str, kind: str, policy: Policy) -> dict[str, Any]:
    """What every response begins with."""
    return {
        "id": session,
        "object": kind,
        "created": int(time.time()),
        "model": asking.model,
        "system_fingerprint": f"v{policy.version}",
    }
