"""Whether a model reads what it is to learn from, told before anything is learned."""

from collections.abc import Sequence

from executors.errors import ConfigError
from rl.data.examples import Example


def fitting(examples: Sequence[Example], limit: int, what: str) -> list[Example]:
    """The examples that a model reads whole.

    Args:
        examples: with one candidate or more each.
        limit: tokens of prompt and candidate together, ``model.max_length``.
        what: they are, in the plural.

    Raises:
        ConfigError: most of them are longer.
    """
    lengths = [len(one.prompt) + max(len(row.ids) for row in one.rows) for one in examples]
    require_room(lengths, limit, what)
    return [one for one, length in zip(examples, lengths, strict=True) if length <= limit]


def require_room(lengths: Sequence[int], limit: int, what: str) -> None:
    """See that a model reads most of what it is to learn from.

    Args:
        lengths: in tokens.
        limit: ``model.max_length``.
        what: is so long, in the plural.

    Raises:
        ConfigError: most are longer than the limit.
    """
    longer = sum(length > limit for length in lengths)
    if 2 * longer > len(lengths):
        ordered = sorted(lengths)
        raise ConfigError(
            f"model.max_length: {limit} tokens, and {longer} of {len(lengths)} {what} are longer; the middle one takes "
            f"{ordered[len(ordered) // 2]}, nine in ten up to {ordered[len(ordered) * 9 // 10]}, the longest "
            f"{ordered[-1]}: raise it to what they take"
        )
