"""What ranks that share a model out can learn, and what not."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rl.learner.footprint import Strategy
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Objective
from rl.models.choice import ModelConfig

if TYPE_CHECKING:
    from rl.recipes.parts import Cluster, LearnerSettings

Fit = tuple[int, OptimiserConfig, Objective]
"""What ranks share of one stage: its batch, how and what it minimises."""


def unshared(
    learner: "LearnerSettings | None", cluster: "Cluster", model: ModelConfig, fits: Mapping[str, Fit]
) -> Iterator[str]:
    """What the stages of a recipe ask and its ranks cannot do.

    Args:
        learner: the ranks; without any, there is nothing that they cannot do.
        cluster: that they are on, where the run starts one.
        model: that is learned.
        fits: by the name of their section.
    """
    if learner is None:
        return
    for name, (batch_size, optimiser, objective) in fits.items():
        yield from unlearnable(learner.strategy, learner.gpu, model, name, optimiser, objective)
        if batch_size < learner.workers:
            yield f"learner.workers: {learner.workers} ranks cannot share {name}'s batch of {batch_size}"
    if learner.workers >= cluster.num_cpus:
        yield f"ray.num_cpus: {cluster.num_cpus} are too few for {learner.workers} ranks and what serves them"


def unlearnable(
    strategy: Strategy,
    gpu: bool,
    model: ModelConfig,
    name: str,
    optimiser: OptimiserConfig,
    objective: Objective,
) -> Iterator[str]:
    """What one stage asks and the learner's strategy cannot do.

    Args:
        strategy: how the ranks hold the model.
        gpu: whether they are on GPUs.
        model: that is learned.
        name: of the stage's section.
        optimiser: of the stage.
        objective: of the stage.
    """
    adapter = model.adapter
    if adapter is not None and adapter.kind == "qlora":
        if not gpu:
            yield "model.adapter: kind qlora needs a GPU; set learner.gpu: true, or take kind lora"
        if strategy in ("zero3", "fsdp2"):
            yield f"model.adapter: weights of 4 bits cannot be shared out by {strategy}; take ddp or zero2"
    if strategy == "ddp":
        return
    if optimiser.kind != "adamw":
        yield (
            f"{name}.optimiser: {optimiser.kind} needs whole matrices, and learner.strategy {strategy} gives each rank "
            "a share of them; take kind adamw, or learner.strategy ddp"
        )
    if objective.needs_reference:
        yield (
            f"{name}.objective: it compares with the weights of the stage's beginning, which learner.strategy "
            f"{strategy} does not keep; leave kl_weight and reference terms out, or take learner.strategy ddp"
        )
