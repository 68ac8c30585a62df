"""A config's processes, memory, steps, tokens and costs, as far as they can be told beforehand."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from rl.planning.knobs import dead_knobs
from rl.planning.requests import endpoints, stage_one
from rl.planning.size import Size, size_of
from rl.recipes.parts import RecipeConfig
from rl.serving.sources import EndpointConfig, LocalConfig, VllmConfig, VllmEngineConfig

_PROCESS = 600 * 2**20
"""Bytes that a process takes with its libraries loaded, before any weights."""
_RAY = 500 * 2**20
"""Bytes of Ray's own processes; the dashboard takes 200 MiB more."""
_FLOAT = 4
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
    found = [
        Processes(name="driver, Ray, object store", count=1, cpus=0, gpus=0, memory=_PROCESS + _RAY + store),
        Processes(
            name="learner rank",
            count=learner.workers,
            cpus=0 if learner.gpu else 1,
            gpus=float(learner.gpu),
            memory=_rank(config, size),
        ),
    ]
    here = [one for one in config.policies.values() if isinstance(one, LocalConfig | VllmEngineConfig)]
    for name, one in config.policies.items():
        if isinstance(one, LocalConfig | VllmEngineConfig) and one.place is not None:
            place, held = one.place, _PROCESS + size.parameters * _FLOAT
            found.append(Processes(name=f"{name}", count=place.workers, cpus=place.cpus, gpus=place.gpus, memory=held))
    local, engines = 1 + len(config.peers), sum(one.place is None for one in here)
    held = _PROCESS + (local + engines) * size.parameters * _FLOAT
    found.append(Processes(name="rollout worker", count=rollouts.workers, cpus=1, gpus=rollouts.gpus, memory=held))
    if any(isinstance(policy, EndpointConfig | VllmConfig) for policy in config.policies.values()):
        found.append(Processes(name="endpoint worker", count=1, cpus=0, gpus=0, memory=_PROCESS))
    for name, pool in config.executor.pools.items():
        found.append(
            Processes(name=f"executors {name}", count=pool.count, cpus=pool.cpus, gpus=pool.gpus, memory=_PROCESS)
        )
    beside = len(config.peers) + bool(config.baselines.continued_cloning_steps)
    if beside:
        fit = _PROCESS + size.parameters * _FLOAT * 4 + _ACTIVATIONS
        found.append(Processes(name="fit beside the run", count=beside, cpus=1, gpus=0, memory=fit))
    return found


def _rank(config: RecipeConfig, size: Size) -> float:
    """Bytes of a rank: weights, gradients, the optimiser's two moments, activations."""
    adapter = config.model.adapter
    ranks = config.learner.workers
    shared = {"ddp": (1, 1), "zero2": (1, ranks), "zero3": (ranks, ranks), "fsdp2": (ranks, ranks)}
    of_weights, of_moments = shared[config.learner.strategy]
    weight = _QUANTISED if adapter is not None and adapter.kind == "qlora" else _FLOAT
    held = size.parameters * weight / of_weights + size.trained * _FLOAT * 3 / of_moments
    if adapter is not None:
        held += size.trained * _FLOAT
    inner = 4 * size.width
    position = _FLOAT * size.layers * (16 * size.width + 4 * inner) + 8 * size.vocabulary
    candidates = sum(source.count for source in config.sources)
    largest = max(config.cloning.batch_size, config.improvement.batch_size * candidates) * config.model.max_length
    if config.learner.max_tokens is not None:
        return _PROCESS + held + min(largest, config.learner.max_tokens) * position
    return _PROCESS + held + min(_ACTIVATIONS, largest * position)


def plan(config: RecipeConfig) -> Iterator[str]:
    """The lines of ``apprentice plan``; nothing is started, and no weights are read."""
    yield f"config     {config.name}: recipe {getattr(config, 'recipe', '?')}, seed {config.seed}"
    size = size_of(config.model)
    if size is None:
        yield "model      not on this machine, and its name does not say its size: memory is not planned"
    else:
        yield (
            f"model      {_count(size.parameters)} parameters, {_count(size.trained)} trained; {size.layers} layers of "
            f"{size.width}, {size.vocabulary:,} tokens ({size.origin})"
        )
        yield from _placement(config, size)
    yield from _stages(config)
    yield from endpoints(config)
    if size is not None:
        checkpoint = (size.trained if config.model.adapter else size.parameters) * _FLOAT + size.trained * 2 * _FLOAT
        kept = config.learner.keep + 4
        yield f"disk       a checkpoint {_bytes(checkpoint)}, about {kept} kept: {_bytes(kept * checkpoint)}"
        needed = 3 * size.trained * _FLOAT
        if needed > config.ray.object_store_mib * 2**20:
            yield (
                f"warning    ray.object_store_mib: three versions of the weights take {_bytes(needed)}, and there are "
                f"{config.ray.object_store_mib} MiB; raise it to {int(needed / 2**20) + 100}"
            )
    for knob in dead_knobs(config):
        yield f"unread     {knob}"


def _placement(config: RecipeConfig, size: Size) -> Iterator[str]:
    found = processes(config, size)
    yield f"processes  {'':<26}{'count':>5}{'CPUs':>6}{'GPUs':>6}   memory of each"
    for kind in found:
        where = " (GPU)" if kind.gpus else ""
        yield f"           {kind.name:<26}{kind.count:>5}{kind.cpus:>6g}{kind.gpus:>6g}   {_bytes(kind.memory)}{where}"
    cpus = sum(kind.count * kind.cpus for kind in found)
    gpus = sum(kind.count * kind.gpus for kind in found)
    memory = sum(kind.count * kind.memory for kind in found if not kind.gpus)
    there = psutil.virtual_memory().total
    yield (
        f"in all     {cpus:g} CPUs, {gpus:g} GPUs, {_bytes(memory)} of memory beside the GPUs'; "
        f"this machine has {os.cpu_count()} cores and {_bytes(there)}"
    )
    if gpus:
        yield "placement  a Ray cluster with these GPUs: ray job submit -- apprentice train ..."
    elif memory > there:
        yield "warning    that is more memory than this machine has; take fewer workers, or a cluster"


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
        f"{_count(improvement.rounds * improvement.tasks_per_round * written)} tokens written and "
        f"{_count(episodes * length)} learned from"
    )
    if (searching := config.rollouts.searching) is not None:
        yield (
            f"search     {searching.name}: ways of {searching.depth} calls, until {searching.answers} answers or "
            f"{config.rollouts.replies} replies"
        )
    judged = improvement.rounds // improvement.validate_every + 1
    yield f"validate   {judged} checkpoints; the best of them is kept, and measured on the test tasks"


def _count(number: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:g}"


def _bytes(number: float) -> str:
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number / 2**10:.3g} KiB"
