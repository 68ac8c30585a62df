"""How well a policy chooses between calling and answering, measured against its own direct answers."""

from collections.abc import Mapping, Sequence

from executors.types import ToolCall
from rewards.correctness import Match, correctness, right_as_trice
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
        ``failed_calls``, attempts with a well-formed call that failed. Attempts that the infrastructure did not let
        finish count nowhere.
    """
    chosen = [_of(group, source) for group in groups]
    played = [float(episode.finished) for episode in chosen]
    right = [correctness(group.task, episode, match) for group, episode in zip(groups, chosen, strict=True)]
    called = [float(episode.called) for episode in chosen]
    shares = {
        "accuracy": right,
        "utility": [value - call_cost * call for value, call in zip(right, called, strict=True)],
        "call_rate": called,
        "malformed": [float(episode.malformed) for episode in chosen],
        "failed_calls": [float(_failed(episode)) for episode in chosen],
    }
    return {name: _among(values, played) for name, values in shares.items()}


def selectivity_ratios(
    groups: Sequence[Group], source: str = FREE, *, match: Match = "numeric", call_cost: float = 0.2
) -> dict[str, Ratio]:
    """The figures of one attempt at each question, with its choice between calling and answering judged.

    A call is needed where the policy's own greedy direct answer is wrong, or where, made to answer, it called: so need
    is that of the policy as it is now.

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
    direct = [_of(group, DIRECT) for group in groups]
    both = [
        float(episode.finished and _of(group, source).finished) for group, episode in zip(groups, direct, strict=True)
    ]
    called = [bool(_of(group, source).called) for group in groups]
    needed = [
        episode.called or not correctness(group.task, episode, match)
        for group, episode in zip(groups, direct, strict=True)
    ]
    unneeded = [float(not need) for need in needed]
    decided = [float(call == need) for call, need in zip(called, needed, strict=True)]
    right = [correctness(group.task, _of(group, source), match) for group in groups]
    outcomes = {
        name: _among(
            [float((r == 1) == truth and (d == 1) == agreed) for r, d in zip(right, decided, strict=True)], both
        )
        for name, truth, agreed in _OUTCOMES
    }
    found = {
        "accuracy": ratios["accuracy"],
        "decisions": _among(decided, both),
        "needless": _among([float(call) for call in called], [a * b for a, b in zip(unneeded, both, strict=True)]),
        "missed": _among(
            [float(not call) for call in called], [float(a) * b for a, b in zip(needed, both, strict=True)]
        ),
        **{name: ratios[name] for name in ("malformed", "call_rate", "utility", "failed_calls")},
        "need": _among([float(need) for need in needed], both),
        **outcomes,
        "accuracy_trice": _among([float(right_as_trice(group.task, _of(group, source))) for group in groups], both),
    }
    return found | by_dataset(groups, {name: found[name] for name in _OF_DATASETS})


_OUTCOMES = (
    ("true_yes", True, True),
    ("true_no", True, False),
    ("false_yes", False, True),
    ("false_no", False, False),
)
"""By TRICE's names: whether the answer is right, and whether the tool was called exactly if needed."""
FURTHER = ("need", *(name for name, _, _ in _OUTCOMES), "accuracy_trice")
"""Figures that follow from the others or stand beside them: in tables, not in a line."""
_OF_DATASETS = ("accuracy", "call_rate", "need", "decisions", "needless", "missed", "accuracy_trice")


def by_dataset(groups: Sequence[Group], ratios: Mapping[str, Ratio]) -> dict[str, Ratio]:
    """The figures of each data set as ``figure/NAME``; none where all tasks are of one."""
    labels = [group.task.labels.get("dataset", "") for group in groups]
    names = sorted(set(labels))
    if len(names) < 2:
        return {}
    return {
        f"{figure}/{name or 'other'}": ratio.among([label == name for label in labels])
        for figure, ratio in ratios.items()
        for name in names
    }


def _among(values: Sequence[float], counted: Sequence[float]) -> Ratio:
    """The mean of the values of those that are counted."""
    return Ratio([value * count for value, count in zip(values, counted, strict=True)], counted)


def _failed(episode: Episode) -> bool:
    return any(
        isinstance(call, ToolCall) and not observation.ok
        for call, observation in zip(episode.calls, episode.observations, strict=True)
    )


def _of(group: Group, source: str) -> Episode:
    return next(episode for episode in group.episodes if episode.source == source)
