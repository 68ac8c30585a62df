"""Whether an episode's calls could be read and ran."""

from rollouts.types import Episode


def wellformed(episode: Episode) -> float:
    """0.0 where any call was malformed, else 1.0; an episode without a call is well-formed."""
    return float(not episode.malformed)


def executed(episode: Episode) -> float:
    """Share of an episode's calls that ran and answered; 1.0 where it made none."""
    observations = episode.observations
    return sum(observation.ok for observation in observations) / len(observations) if observations else 1.0
