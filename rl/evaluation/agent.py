"""What became of attempts at requests whose tools are known: were they called, and did it come to an answer."""

from collections.abc import Collection, Sequence

from executors.types import ToolCall
from rl.evaluation.intervals import Ratio
from rollouts.types import Episode


def agent_ratios(
    episodes: Sequence[Episode], wanted: Sequence[Collection[str]], known: Collection[str]
) -> dict[str, Ratio]:
    """Every measure over some attempts, one for each request; what the infrastructure failed is left out.

    Args:
        episodes: the attempts.
        wanted: for each, names of the tools that answer its request.
        known: names of the tools that there are.

    Returns:
        ``selected``: of attempts, those whose first call is of a wanted tool. ``called``: of the wanted tools, those
        that were called and answered. ``answered``: attempts that came to an answer; ``completed``: those that did so
        after all their wanted tools had answered. Of calls: ``good_calls``, those that a tool took; ``malformed``,
        those that could not be read; ``invented``, those of tools that do not exist.
    """
    played = [(episode, set(names)) for episode, names in zip(episodes, wanted, strict=True) if episode.finished]
    calls = [[call for call in episode.calls if isinstance(call, ToolCall)] for episode, _ in played]
    made = [float(len(episode.calls)) for episode, _ in played]
    ran = [{c.tool for c, seen in _seen(episode) if isinstance(c, ToolCall) and seen} for episode, _ in played]
    answered = [episode.stop == "answer" and bool(episode.answer and episode.answer.strip()) for episode, _ in played]
    wishes = [names for _, names in played]
    due = [float(len(names)) for names in wishes]
    firsts = [bool(own) and own[0].tool in names for own, names in zip(calls, wishes, strict=True)]
    whole = [ended and names <= done for ended, names, done in zip(answered, wishes, ran, strict=True)]
    return {
        "selected": Ratio([float(first) for first in firsts]),
        "called": Ratio([float(len(names & done)) for names, done in zip(wishes, ran, strict=True)], due),
        "answered": Ratio([float(one) for one in answered]),
        "completed": Ratio([float(one) for one in whole]),
        "good_calls": Ratio([float(sum(seen for _, seen in _seen(episode))) for episode, _ in played], made),
        "malformed": Ratio([number - len(own) for number, own in zip(made, calls, strict=True)], made),
        "invented": Ratio([float(sum(call.tool not in known for call in own)) for own in calls], made),
    }


def _seen(episode: Episode) -> list[tuple[object, bool]]:
    """Each call, and whether it was answered."""
    pairs = zip(episode.calls, episode.observations, strict=True)
    return [(call, observation.ok) for call, observation in pairs]
