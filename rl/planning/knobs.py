"""Settings that a user has written and that nothing reads, under the others that he has written."""

import os
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rewards.ranking import GOLD
from rl.learner.optimiser import OptimiserConfig
from rl.recipes.parts import RecipeConfig, SourceConfig


def dead_knobs(config: RecipeConfig) -> list[str]:
    """Each such setting, and why nothing reads it."""
    found = [
        *_optimisers("cloning", config.cloning.optimiser),
        *_optimisers("improvement", config.improvement.optimiser),
    ]
    for index, source in enumerate(config.sources):
        found += _source(f"sources.{index} ({source.name})", source)
    improvement = config.improvement
    if improvement.validate_every > improvement.rounds:
        found.append(
            f"improvement.validate_every: {improvement.validate_every} is more than the {improvement.rounds} rounds: "
            "only the start and the end are judged"
        )
    if _set(config.learner, "max_tokens") and config.learner.max_tokens == config.model.max_length:
        found.append("learner.max_tokens: it is model.max_length, so a pass reads one candidate at a time")
    if _set(config.ray, "num_cpus", "object_store_mib") and _joins():
        found.append("ray: RAY_ADDRESS names a cluster, which has its own CPUs and object store")
    if _set(config.rollouts, "tool_timeout") and not _own_tools(config):
        found.append("rollouts.tool_timeout: the tasks have no tool that runs")
    return found


def _optimisers(stage: str, optimiser: OptimiserConfig) -> Iterator[str]:
    if optimiser.kind == "adamw" and _set(optimiser, "muon_lr"):
        yield f"{stage}.optimiser.muon_lr: kind adamw has no use for it; lr is its learning rate"
    if optimiser.schedule == "constant" and _set(optimiser, "floor"):
        yield f"{stage}.optimiser.floor: a constant schedule never falls to it"


def _source(where: str, source: SourceConfig) -> Iterator[str]:
    written = [name for name in ("top_p", "top_k") if _set(source, name)]
    if source.policy == GOLD:
        written = [name for name in (*written, "temperature", "max_tokens") if _set(source, name)]
        for name in dict.fromkeys(written):
            yield f"{where}.{name}: the gold attempt is written out, not sampled"
    elif source.temperature == 0:
        for name in written:
            yield f"{where}.{name}: at temperature 0 the likeliest token is taken"
        if source.count > 1:
            yield f"{where}.count: {source.count} greedy attempts are the same one {source.count} times"


def _set(model: BaseModel, *names: str) -> bool:
    """Whether a user has written one of these to something else than the default."""
    fields = type(model).model_fields
    return any(name in model.model_fields_set and getattr(model, name) != fields[name].default for name in names)


def _joins() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def _own_tools(config: RecipeConfig) -> bool:
    tasks: Any = config.tasks
    return getattr(tasks, "kind", "") not in ("ste_pool",)
