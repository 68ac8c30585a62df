"""Replies that follow a JSON schema: which tokens may come next, by llguidance, for any tokenizer that it reads.

The grammar speaks of bytes and the tokenizer's table says which bytes a token stands for, so that no way of cutting a
text into tokens is left out, and none that breaks the schema gets in. Keywords of JSON Schema that cannot be enforced
are refused.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from rl.serving.wire import ChatError
from rollouts.policy import Policy

_OPTIONS: Any = {"whitespace_pattern": " ?", "lenient": False}
"""One space at most wherever JSON has room for white space: a policy may fill a reply with it otherwise."""
_LIMITS = LLParserLimits(max_grammar_size=100_000, verbose_errors=False)


class JsonConstraint:
    """Allows what goes on with JSON that follows a schema, and an end where that is complete. For one reply."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._read: int | None = None

    def allowed(self, ids: Sequence[int]) -> np.ndarray:
        """See ``rollouts.policy.Constraint``. What the reply was made to begin with is no part of the JSON."""
        if self._read is None:
            self._read = len(ids)
        if not self._matcher.consume_tokens([int(id) for id in ids[self._read :]]):
            raise ValueError(self._matcher.get_error())
        self._read = len(ids)
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(mask, bitorder="little").nonzero()[0]


class Structures:
    """One policy's tokenizer, for constraints by schema."""

    def __init__(self, policy: Policy) -> None:
        """
        Args:
            policy: that writes tokens and takes constraints.

        Raises:
            ChatError: it is none, or has no token that ends a reply.
        """
        tokenizer: Any = getattr(policy, "tokenizer", None)
        ends: list[int] = sorted(getattr(policy, "ends", ()))
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not ends:
            raise ChatError(
                f"{policy.name} cannot be held to 'response_format' by this server",
                param="response_format",
                code="unsupported_parameter",
            )
        self._tokenizer = LLTokenizer(backend.to_str(), eos_token=ends)

    def constraints(self, schema: Mapping[str, Any], count: int) -> list[JsonConstraint]:
        """Constraints by a schema, one for each of several replies; made in a second at most, as a rule.

        Raises:
            ChatError: the schema is none, asks for what cannot be enforced, or is too large.
        """
        matcher = self.matcher(schema)
        return [JsonConstraint(matcher.deep_copy()) for _ in range(count)]

    def matcher(self, schema: Mapping[str, Any]) -> LLMatcher:
        """What follows a schema, to be copied for each reply.

        Raises:
            ChatError: see ``constraints``.
        """
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
        except (ValueError, RecursionError) as error:
            raise _refusal(str(error)) from error
        failed, told = LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer, limits=_LIMITS)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
        if not failed and not told:
            matcher.compute_bitmask()
        if failed or told or matcher.is_error():
            raise _refusal((told or [matcher.get_error()])[0])
        return matcher


def _refusal(why: str) -> ChatError:
    lines = why.strip().splitlines() or ["it cannot be read"]
    return ChatError(
        f"the schema cannot be enforced: {lines[0][:200]}", param="response_format", code="unsupported_value"
    )
