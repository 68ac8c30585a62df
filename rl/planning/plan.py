"""A config's processes, memory, steps, tokens and costs, as far as they can be told beforehand."""

from collections.abc import Iterator
from typing import Any

from rl.models.choice import ModelConfig
from rl.planning.knobs import dead_knobs
from rl.planning.outlines import outline
from rl.planning.placement import FLOAT, placement, processes, processes_alone
from rl.planning.quantities import count, memory
from rl.planning.requests import endpoints, stage_one
from rl.planning.size import Size, size_of
from rl.recipes.parts import RecipeConfig


def plan(config: Any) -> Iterator[str]:
    """The lines of ``apprentice plan``; nothing is started, and no weights are read.

    Args:
        config: of any recipe.

    Raises:
        ApprenticeError: tools that the config names, of which a plan counts the queries, cannot be had.
    """
    yield f"config     {config.name}: recipe {getattr(config, 'recipe', '?')}, seed {config.seed}"
    size = size_of(config.model)
    if size is None:
        yield "model      not on this machine, and its name does not say its size: memory is not planned"
    else:
        yield (
            f"model      {count(size.parameters)} parameters, {count(size.trained)} trained; {size.layers} layers of "
            f"{size.width}, {size.vocabulary:,} tokens ({size.origin})"
        )
    if isinstance(config, RecipeConfig):
        yield from _on_ray(config, size)
    else:
        if size is not None:
            yield from placement(processes_alone(config, size))
        yield from outline(config)
        if size is not None:
            yield f"disk       a checkpoint {memory(_checkpoint(config.model, size))}"
    for knob in dead_knobs(config):
        yield f"unread     {knob}"


def _on_ray(config: RecipeConfig, size: Size | None) -> Iterator[str]:
    if size is not None:
        yield from placement(processes(config, size))
    yield from _stages(config)
    yield from endpoints(config)
    if size is not None:
        checkpoint, kept = _checkpoint(config.model, size), config.learner.keep + 4
        yield f"disk       a checkpoint {memory(checkpoint)}, about {kept} kept: {memory(kept * checkpoint)}"
        needed = 3 * size.trained * FLOAT
        if needed > config.ray.object_store_mib * 2**20:
            yield (
                f"warning    ray.object_store_mib: three versions of the weights take {memory(needed)}, and there are "
                f"{config.ray.object_store_mib} MiB; raise it to {int(needed / 2**20) + 100}"
            )


def _checkpoint(model: ModelConfig, size: Size) -> float:
    """Bytes of the weights, or of an adapter's, and of the optimiser's two moments."""
    return (size.trained if model.adapter else size.parameters) * FLOAT + size.trained * 2 * FLOAT


def _stages(config: RecipeConfig) -> Iterator[str]:
    cloning, improvement = config.cloning, config.improvement
    candidates = sum(source.count for source in config.sources)
    length = config.model.max_length
    yield from stage_one(config)
    yield f"clone      {cloning.steps:,} steps of {cloning.batch_size}: {cloning.steps * cloning.batch_size:,} examples"
    episodes = improvement.rounds * improvement.tasks_per_round * candidates
    written = sum(source.count * source.max_tokens for source in config.sources) * config.rollouts.replies
    yield (
        f"improve    {improvement.rounds} rounds of {improvement.tasks_per_round} tasks by {candidates} attempts: "
        f"{episodes:,} episodes, {improvement.steps:,} steps; at most "
        f"{count(improvement.rounds * improvement.tasks_per_round * written)} tokens written and "
        f"{count(episodes * length)} learned from"
    )
    if (searching := config.rollouts.searching) is not None:
        yield (
            f"search     {searching.name}: ways of {searching.depth} calls, until {searching.answers} answers or "
            f"{config.rollouts.replies} replies"
        )
    judged = improvement.rounds // improvement.validate_every + 1
    told = f"{judged} checkpoint{'s' * (judged > 1)}"
    yield f"validate   {told}; the best of them is kept, and measured on the test tasks"
