"""Which processes a config starts, where they find room, and how much memory each holds."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from rl.config import parts
from rl.models.choice import AdapterConfig
from rl.planning.quantities import memory
from rl.planning.size import Size
from rl.recipes.parts import Cluster, LearnerSettings, RecipeConfig
from rl.recipes.ste_config import LIVE, SteConfig
from rl.recipes.toolgen_config import ToolGenConfig
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rl.serving.sources import EndpointConfig, LocalConfig, VllmConfig, VllmEngineConfig

_PROCESS = 600 * 2**20
"""Bytes that a process takes with its libraries loaded, before any weights."""
_RAY = 500 * 2**20
"""Bytes of Ray's own processes; the dashboard takes 200 MiB more."""
FLOAT = 4
"""Bytes of a number."""
_QUANTISED = 0.55
"""Bytes of a weight in 4 bits, its scales included."""
_ACTIVATIONS = 2 * 2**30
"""Bytes that activations may take on a CPU; see ``Scorer``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Processes of one kind."""

    name: str
    count: int
    cpus: float
    gpus: float
    memory: float
    """Bytes of each, on the GPU where it has one."""


def processes(config: RecipeConfig, size: Size) -> list[Processes]:
    """What a run starts, on whichever machines have room."""
    learner, rollouts = config.learner, config.rollouts
    store = config.ray.object_store_mib * 2**20
    candidates = sum(source.count for source in config.sources)
    largest = max(config.cloning.batch_size, config.improvement.batch_size * candidates)
    found = [
        Processes(name="driver, Ray, object store", count=1, cpus=0, gpus=0, memory=_PROCESS + _RAY + store),
        _ranks(learner, _held(size, config.model.adapter, learner, largest * config.model.max_length)),
    ]
    here = [one for one in config.policies.values() if isinstance(one, LocalConfig | VllmEngineConfig)]
    for name, one in config.policies.items():
        if isinstance(one, LocalConfig | VllmEngineConfig) and one.place is not None:
            place, held = one.place, _PROCESS + size.parameters * FLOAT
            found.append(Processes(name=f"{name}", count=place.workers, cpus=place.cpus, gpus=place.gpus, memory=held))
    local, engines = 1 + len(config.peers), sum(one.place is None for one in here)
    held = _PROCESS + (local + engines) * size.parameters * FLOAT
    found.append(Processes(name="rollout worker", count=rollouts.workers, cpus=1, gpus=rollouts.gpus, memory=held))
    if any(isinstance(policy, EndpointConfig | VllmConfig) for policy in config.policies.values()):
        found.append(Processes(name="endpoint worker", count=1, cpus=0, gpus=0, memory=_PROCESS))
    for name, pool in config.executor.pools.items():
        found.append(
            Processes(name=f"executors {name}", count=pool.count, cpus=pool.cpus, gpus=pool.gpus, memory=_PROCESS)
        )
    beside = len(config.peers) + bool(config.baselines.continued_cloning_steps)
    if beside:
        fit = _PROCESS + size.parameters * FLOAT * 4 + _ACTIVATIONS
        found.append(Processes(name="fit beside the run", count=beside, cpus=1, gpus=0, memory=fit))
    return found


def processes_alone(config: Any, size: Size) -> list[Processes]:
    """What a recipe starts that brings its own training: one process for all of it, and its ranks or workers."""
    model, learner = config.model, getattr(config, "learner", None)
    batches = [getattr(part, "batch_size", 1) for _, part in parts(config) if hasattr(part, "optimiser")]
    largest = max(batches, default=1) * model.max_length
    on_gpu = isinstance(config, ToolGenConfig) and config.fitting.gpu
    fit = 0.0 if learner else _held(size, model.adapter, LearnerSettings(), largest)
    plain = _PROCESS + size.parameters * FLOAT
    one = Processes(name="this process", count=1, cpus=1, gpus=float(on_gpu), memory=max(plain, fit))
    heads = config.head_workers if isinstance(config, ToolkenGptConfig) else 0
    explorers = _explorers(config, size) if isinstance(config, SteConfig) else []
    if learner is None and not heads and not explorers:
        return [one]
    store = getattr(config, "ray", Cluster()).object_store_mib * 2**20
    found = [one, Processes(name="Ray, object store", count=1, cpus=0, gpus=0, memory=_RAY + store), *explorers]
    if learner is not None:
        found.append(_ranks(learner, _held(size, model.adapter, learner, largest)))
    if heads:
        found.append(Processes(name="holder of places", count=heads, cpus=1, gpus=0, memory=_PROCESS))
    return found


def _explorers(config: SteConfig, size: Size) -> list[Processes]:
    """The workers that make STE's trials, where the config has any, each with the models that attempt queries."""
    place = config.place
    if place is None:
        return []
    models = {LIVE} | {name for name, one in config.policies.items() if isinstance(one, LocalConfig | VllmEngineConfig)}
    held = len(models & {actor.policy for actor in config.actors})
    each = _PROCESS + held * size.parameters * FLOAT
    return [Processes(name="trial worker", count=place.workers, cpus=place.cpus, gpus=place.gpus, memory=each)]


def _ranks(learner: LearnerSettings, held: float) -> Processes:
    cpus, gpus = (0, 1) if learner.gpu else (1, 0)
    return Processes(name="learner rank", count=learner.workers, cpus=cpus, gpus=gpus, memory=held)


def _held(size: Size, adapter: AdapterConfig, learner: LearnerSettings, largest: int) -> float:
    """Bytes of a rank: weights, gradients, the optimiser's two moments, activations.

    Args:
        size: of the model.
        adapter: that is trained instead of it, if one is.
        learner: how the ranks hold it.
        largest: positions of the largest step.
    """
    ranks = learner.workers
    shared = {"ddp": (1, 1), "zero2": (1, ranks), "zero3": (ranks, ranks), "fsdp2": (ranks, ranks)}
    of_weights, of_moments = shared[learner.strategy]
    weight = _QUANTISED if adapter is not None and adapter.kind == "qlora" else FLOAT
    held = size.parameters * weight / of_weights + size.trained * FLOAT * 3 / of_moments
    if adapter is not None:
        held += size.trained * FLOAT
    inner = 4 * size.width
    position = FLOAT * size.layers * (16 * size.width + 4 * inner) + 8 * size.vocabulary
    if learner.max_tokens is not None:
        return _PROCESS + held + min(largest, learner.max_tokens) * position
    return _PROCESS + held + min(_ACTIVATIONS, largest * position)


def placement(found: Sequence[Processes]) -> Iterator[str]:
    """The lines of a plan on processes, and on whether this machine has room for them."""
    yield f"processes  {'':<26}{'count':>5}{'CPUs':>6}{'GPUs':>6}   memory of each"
    for kind in found:
        where = " (GPU)" if kind.gpus else ""
        yield f"           {kind.name:<26}{kind.count:>5}{kind.cpus:>6g}{kind.gpus:>6g}   {memory(kind.memory)}{where}"
    cpus = sum(kind.count * kind.cpus for kind in found)
    gpus = sum(kind.count * kind.gpus for kind in found)
    whole = sum(kind.count * kind.memory for kind in found if not kind.gpus)
    there = psutil.virtual_memory().total
    yield (
        f"in all     {cpus:g} CPUs, {gpus:g} GPUs, {memory(whole)} of memory beside the GPUs'; "
        f"this machine has {os.cpu_count()} cores and {memory(there)}"
    )
    if gpus and len(found) > 1:
        yield "placement  a Ray cluster with these GPUs: ray job submit -- apprentice train ..."
    elif whole > there:
        yield "warning    that is more memory than this machine has; take fewer workers, or a cluster"
