"""How well a policy chooses between calling and answering, measured against its own direct answers."""

from collections.abc import Sequence

from executors.types import ToolCall
from rewards.correctness import Match, correctness
from rl.evaluation.intervals import Ratio
from rollouts.policy import Source
from rollouts.types import Episode, Group, Sampling

FREE, DIRECT, CALL = "free", "direct", "call"


def evaluation_sources(policy: str, max_tokens: int) -> list[Source]:
    """Three greedy attempts at each question: free, made to answer directly, made to call."""
    sampling = Sampling(max_tokens=max_tokens)
    return [
        Source(name=FREE, policy=policy, sampling=sampling),
        Source(name=DIRECT, policy=policy, sampling=sampling, force="direct"),
        Source(name=CALL, policy=policy, sampling=sampling, force="call"),
    ]


def attempt_ratios(
    groups: Sequence[Group], source: str = FREE, *, match: Match = "numeric", call_cost: float = 0.2
) -> dict[str, Ratio]:
    """The figures of one attempt at each question that need no other attempt beside it.

    Returns:
        ``accuracy``; ``utility``, right minus ``call_cost`` where it called; ``call_rate``; ``malformed``;
        ``failed_calls``, attempts with a well-formed call that failed.
    """
    chosen = [_of(group, source) for group in groups]
    right = [correctness(group.task, episode, match) for group, episode in zip(groups, chosen, strict=True)]
    called = [float(episode.called) for episode in chosen]
    return {
        "accuracy": Ratio(right),
        "utility": Ratio([value - call_cost * call for value, call in zip(right, called, strict=True)]),
        "call_rate": Ratio(called),
        "malformed": Ratio([float(episode.malformed) for episode in chosen]),
        "failed_calls": Ratio([float(_failed(episode)) for episode in chosen]),
    }


def selectivity_ratios(
    groups: Sequence[Group], source: str = FREE, *, match: Match = "numeric", call_cost: float = 0.2
) -> dict[str, Ratio]:
    """The figures of one attempt at each question, with its choice between calling and answering judged.

    A call is needed where the policy's own greedy direct answer is wrong.

    Args:
        groups: attempts from ``evaluation_sources``.
        source: which attempt is measured; ``call`` gives the always-call baseline, ``direct`` the always-direct one.
        match: how answers are compared.
        call_cost: what utility takes off for an attempt that calls.

    Returns:
        ``decisions``, the share that called exactly if needed; ``needless``, calls among questions that need none;
        ``missed``, direct answers among those that need one; and what ``attempt_ratios`` gives.
    """
    ratios = attempt_ratios(groups, source, match=match, call_cost=call_cost)
    called = ratios["call_rate"].parts
    needed = [1.0 - correctness(group.task, _of(group, DIRECT), match) for group in groups]
    unneeded = [1.0 - value for value in needed]
    return {
        "accuracy": ratios["accuracy"],
        "decisions": Ratio([float(call == need) for call, need in zip(called, needed, strict=True)]),
        "needless": Ratio([call * spare for call, spare in zip(called, unneeded, strict=True)], unneeded),
        "missed": Ratio([(1 - call) * need for call, need in zip(called, needed, strict=True)], needed),
        **{name: ratios[name] for name in ("malformed", "call_rate", "utility", "failed_calls")},
    }


def _failed(episode: Episode) -> bool:
    return any(
        isinstance(turn.call, ToolCall) and turn.observation is not None and not turn.observation.ok
        for turn in episode.turns
    )


def _of(group: Group, source: str) -> Episode:
    return next(episode for episode in group.episodes if episode.source == source)
