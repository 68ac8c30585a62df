"""Settings that a user has written and that nothing reads, under the others that he has written."""

import os
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from rewards.ranking import GOLD
from rewards.selectivity import LIVE
from rl.config import parts
from rl.learner.schedule import OptimiserConfig
from rl.planning.stages import idle_stages
from rl.recipes.parts import RecipeConfig, SourceConfig
from rl.recipes.searching import SearchConfig
from rl.recipes.ste_config import SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolgen_config import ToolGenConfig

RECORDED = ("ranked", "ste_pool", "gsm8k", "gsm8k_pool")
"""Kinds of tasks that come with recorded attempts, whose names only the data say."""


def dead_knobs(config: BaseModel) -> list[str]:
    """Each such setting, and why nothing reads it: those of the config itself, and those of where it is run."""
    return [*idle_knobs(config), *_circumstances(config), *idle_stages(config)]


def idle_knobs(config: BaseModel) -> list[str]:
    """Each setting that nothing reads wherever the config is run: its other settings say otherwise."""
    found: list[str] = []
    for path, part in parts(config):
        if isinstance(part, OptimiserConfig):
            found += _optimiser(path, part)
        if isinstance(part, SearchConfig):
            found += _search(path, part)
    if isinstance(config, RecipeConfig):
        for index, source in enumerate(config.sources):
            found += _source(f"sources.{index} ({source.name})", source, config)
        if _set(config.rollouts, "tool_timeout") and not _own_tools(config):
            found.append("rollouts.tool_timeout: the tasks have no tool that runs")
    if isinstance(config, ToolAlpacaConfig | ToolGenConfig) and not config.learner and "ray" in config.model_fields_set:
        found.append("ray: nothing of this run is on Ray; say in learner who fits")
    if isinstance(config, SteConfig) and not (config.place or config.learner) and "ray" in config.model_fields_set:
        found.append("ray: nothing of this run is on Ray; say in place who makes the trials, or in learner who fits")
    if isinstance(config, SteConfig):
        found += [
            f"policies.{name}.place: the workers that make the trials hold it; say in place how many there are"
            for name, policy in config.policies.items()
            if getattr(policy, "place", None) is not None
        ]
    if isinstance(config, ToolGenConfig) and config.agent.steps and not (config.stage_files or config.recorded.runs):
        found.append(
            "agent.steps: its attempts are read from stage_files and recorded.runs, and there are none; set one, or "
            "steps to 0"
        )
    if (
        isinstance(config, ToolGenConfig)
        and config.attempts.provider != "retriever"
        and _set(config.attempts, "retrieved")
    ):
        found.append(
            f"attempts.retrieved: provider {config.attempts.provider} retrieves nothing; take provider retriever"
        )
    return found


def _circumstances(config: BaseModel) -> Iterator[str]:
    """Settings that do nothing where, or for as long as, the config is run."""
    if not isinstance(config, RecipeConfig):
        return
    improvement = config.improvement
    if improvement.validate_every > improvement.rounds:
        yield (
            f"improvement.validate_every: {improvement.validate_every} is more than the {improvement.rounds} rounds: "
            "only the start and the end are judged"
        )
    if _set(config.learner, "max_tokens") and config.learner.max_tokens == config.model.max_length:
        yield "learner.max_tokens: it is model.max_length, so a pass reads one candidate at a time"
    if _set(config.ray, "num_cpus", "object_store_mib") and joins():
        yield "ray: RAY_ADDRESS names a cluster, which has its own CPUs and object store"


def _optimiser(path: str, optimiser: OptimiserConfig) -> Iterator[str]:
    if optimiser.kind == "adamw" and _set(optimiser, "muon_lr"):
        yield f"{path}.muon_lr: kind adamw has no use for it; lr is its learning rate"
    if optimiser.schedule == "constant" and _set(optimiser, "floor"):
        yield f"{path}.floor: a constant schedule never falls to it"


def _search(path: str, search: SearchConfig) -> Iterator[str]:
    if search.method == "chain" and _set(search, "back"):
        yield f"{path}.back: a chain begins anew; only method dfs goes back by so many replies"
    if search.width == 1:
        yield f"{path}.width: with 1 there is no other way to try; raise it, or leave search out"


def _source(where: str, source: SourceConfig, config: RecipeConfig) -> Iterator[str]:
    written = [name for name in ("top_p", "top_k") if _set(source, name)]
    recorded = config.tasks.kind in RECORDED and source.policy not in {LIVE, GOLD, *config.peers, *config.policies}
    if source.policy == GOLD or recorded:
        told = "is recorded" if recorded else "is written out"
        for name in ("temperature", "max_tokens", "top_p", "top_k", "force"):
            if _set(source, name):
                yield f"{where}.{name}: the {'attempt' if recorded else 'gold attempt'} {told}, not sampled"
        if source.count > 1:
            yield f"{where}.count: the same attempt {source.count} times; leave it out"
    elif source.temperature == 0:
        for name in written:
            yield f"{where}.{name}: at temperature 0 the likeliest token is taken"
        if source.count > 1:
            yield f"{where}.count: {source.count} greedy attempts are the same one {source.count} times"


def _set(model: BaseModel, *names: str) -> bool:
    """Whether a user has written one of these to something else than the default."""
    fields = type(model).model_fields
    return any(name in model.model_fields_set and getattr(model, name) != fields[name].default for name in names)


def joins() -> bool:
    """Whether a run would join a cluster, rather than start one on this machine."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def _own_tools(config: RecipeConfig) -> bool:
    tasks: Any = config.tasks
    return getattr(tasks, "kind", "") not in ("ste_pool",)
