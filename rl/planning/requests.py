"""What a run asks of models that are not trained, and what that may cost; told before anything is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import DataError
from rl.data.rows import read_rows
from rl.recipes.cloning import OwnAnswers
from rl.recipes.parts import RecipeConfig
from rl.serving.sources import EndpointConfig, VllmConfig


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests, at most."""

    requests: int
    written: int
    """Tokens that come back."""
    read: int = 0
    """Tokens that are sent: each question, and each solved example before it, is at most what the model reads. 0 where
    nobody knows how long prompts will be."""


def questions(config: RecipeConfig) -> int | None:
    """Of how many questions stage 1 asks the policy, at most; None where only data that is elsewhere can tell."""
    demonstrator = config.cloning.demonstrator
    limit = demonstrator.questions if isinstance(demonstrator, OwnAnswers) else None
    counts = [_of(tasks) for tasks in _parts(config.tasks)]
    if any(count is None for count in counts):
        return limit
    total = sum(count or 0 for count in counts)
    return total if limit is None else min(limit, total)


def stage_one(config: RecipeConfig) -> Iterator[str]:
    """The lines of a plan on what comes before cloning: the foundation, and who is asked for demonstrations."""
    cloning = config.cloning
    if cloning.foundation is not None:
        steps = cloning.foundation.steps
        yield f"foundation {steps:,} steps of {cloning.batch_size}: {steps * cloning.batch_size:,} examples"
    demonstrator = cloning.demonstrator
    if not isinstance(demonstrator, OwnAnswers) or "clone" not in config.stages:
        return
    count = questions(config)
    told = f"at most {count:,} questions" if count is not None else "every question (their files are not here)"
    tries = f"{demonstrator.attempts} tries" if demonstrator.attempts > 1 else "one try"
    yield f"ask        {told}, each once by the policy; what it gets wrong goes to {demonstrator.teacher}, {tries} each"


def endpoints(config: RecipeConfig) -> Iterator[str]:
    """A line for each endpoint of a config: how often it is asked, and for how much."""
    for name, policy in config.policies.items():
        if not isinstance(policy, EndpointConfig | VllmConfig):
            continue
        taught, played = _taught(config, name), _played(config, name)
        known = [one for one in (taught, played) if isinstance(one, Asked)]
        cost = sum(one.read * policy.prompt_price + one.written * policy.completion_price for one in known)
        bound = f", and never more than ${policy.max_usd:g}" if policy.max_usd else ""
        priced = f"at most ${cost / 1e6:,.2f}{bound}" if cost else "no price is given"
        parts = [_told(taught, "in stage 1"), _told(played, "in stage 2")]
        said = " and ".join(part for part in parts if part)
        beside = " beside stage 1" if isinstance(taught, str) and cost else ""
        yield f"endpoint   {name}: {said} to {policy.base_url}; {priced}{beside}"


def cost_of(policy: EndpointConfig | VllmConfig, written: int, budget: float | None = None) -> str:
    """What an endpoint may cost, where nobody knows how long its prompts will be.

    Args:
        policy: the endpoint.
        written: tokens that it writes at most.
        budget: dollars that all of the run may cost.
    """
    bounds = [bound for bound in (policy.max_usd, budget) if bound is not None]
    bound = f"never more than ${min(bounds):g}" if bounds else "nothing bounds it but these"
    if not policy.prompt_price and not policy.completion_price:
        return "no price is given"
    return (
        f"what is written costs at most ${written * policy.completion_price / 1e6:,.2f}, what is read is added; {bound}"
    )


def _told(asked: Asked | str | None, where: str) -> str:
    if not isinstance(asked, Asked):
        return f"{asked} {where}" if asked else ""
    return f"at most {asked.requests:,} requests ({asked.written:,} tokens written) {where}" if asked.requests else ""


def _taught(config: RecipeConfig, name: str) -> Asked | str | None:
    """What a teacher of stage 1 is asked; in words where the number of questions is not known."""
    demonstrator = config.cloning.demonstrator
    if not isinstance(demonstrator, OwnAnswers) or demonstrator.teacher != name or "clone" not in config.stages:
        return None
    each = demonstrator.attempts * config.rollouts.max_turns
    count = questions(config)
    if count is None:
        tokens = each * demonstrator.max_tokens
        return f"at most {each} requests ({tokens:,} tokens written) for each question that the policy gets wrong"
    length = config.model.max_length * (1 + demonstrator.shots)
    return Asked(count * each, count * each * demonstrator.max_tokens, count * each * length)


def _played(config: RecipeConfig, name: str) -> Asked:
    """What sources of stage 2 ask it."""
    if "improve" not in config.stages:
        return Asked(0, 0)
    sources = [source for source in config.sources if source.policy == name]
    tasks = config.improvement.rounds * config.improvement.tasks_per_round * config.rollouts.replies
    return Asked(
        tasks * sum(source.count for source in sources),
        tasks * sum(source.count * source.max_tokens for source in sources),
        tasks * sum(source.count * config.model.max_length * (1 + source.shots) for source in sources),
    )


def _parts(tasks: Any) -> list[Any]:
    """The benchmarks of a mixture that are trained on, or the one that there is."""
    return [part.tasks for part in tasks.trained.values()] if tasks.kind == "mixture" else [tasks]


def _of(tasks: Any) -> int | None:
    """How many questions one benchmark demonstrates, at most."""
    drawn = getattr(tasks, "demonstrations", None)
    if drawn is not None:
        return int(drawn)
    path = getattr(tasks, "path", None)
    if path is None or not Path(path).is_file():
        return None
    try:
        return sum(1 for _ in read_rows(Path(path)))
    except DataError:
        return None
