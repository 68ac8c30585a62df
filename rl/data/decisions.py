"""From attempts that were played to what a tool head learns of them: where it called, and where it wrote on."""

from collections.abc import Callable, Mapping, Sequence

from executors.types import ToolCall
from rl.data.spans import MASKED, Targets
from rollouts.types import Episode


def decided(
    episode: Episode,
    opening: str,
    encode: Callable[[str], Sequence[int]],
    tools: Mapping[str, int],
    *,
    vocabulary: int,
    end: int,
) -> Targets:
    """Every token that a policy with a tool head chose in an attempt, the tools among them.

    What it read, the results among it, is masked; so is the first word after a result, which no digit may be, and a
    call that cannot be read.

    Args:
        episode: the attempt; its completions have the tokens of the words.
        opening: what the policy read first.
        encode: a text as tokens.
        tools: the number of each tool.
        vocabulary: the label of the first tool.
        end: the token that stands where a call leaves nothing to read.
    """
    ids = list(encode(opening))
    following: list[int] = [MASKED] * (len(ids) - 1)
    after_result = False
    for turn in episode.turns:
        own = list(turn.completion.token_ids)
        ids += own
        following += [MASKED if after_result and place == 0 else token for place, token in enumerate(own)]
        after_result = False
        if turn.call is None:
            continue
        seen = list(encode(turn.observation.content)) if turn.observation and turn.observation.ok else []
        known = isinstance(turn.call, ToolCall) and turn.call.tool in tools
        label = vocabulary + tools[turn.call.tool] if known and isinstance(turn.call, ToolCall) else MASKED
        ids += seen or [end]
        following += [label, *[MASKED] * (len(seen or [end]) - 1)]
        after_result = bool(seen)
        if not seen:
            break  # what comes after a failed call was not chosen freely
    return Targets(tuple(ids), tuple(following))
