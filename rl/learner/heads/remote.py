"""A tool head learned on Ray: each worker holds a part of the places, and says its part of every step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from rl.learner.head_fit import HeadFit
from rl.learner.tool_head import Epoch, Part, Places, Shard, fit_shared
from rl.models.tool_head import ToolHead
from rl.remote import start

_PATIENCE = 300.0
"""Seconds that a step may take."""


class ShardWorker:
    """Holds a part of the places."""

    def __init__(self) -> None:
        self._shard: Shard | None = None

    def gradient(self, weight: np.ndarray, texts: Sequence[int], places: Sequence[Any]) -> Part:
        """See ``Shard.gradient``.

        Args:
            weight: the rows.
            texts: of the step.
            places: one reference to this worker's part, which is fetched once; again after a restart.
        """
        if self._shard is None:
            self._shard = Shard(ray.get(places[0], timeout=_PATIENCE))
        return self._shard.gradient(weight, texts)


def fit_head_sharded(
    head: ToolHead, places: Places, config: HeadFit, workers: int, *, num_cpus: int | None = None
) -> tuple[ToolHead, list[Epoch]]:
    """What ``fit_head`` does, with the places in parts that Ray workers hold.

    A cluster that this process drives already is used; else one is started, and ended afterwards.

    Args:
        head: where the rows begin; it stays as it is.
        places: of the training texts.
        config: how.
        workers: of them.
        num_cpus: of a cluster that is started here; one for each worker by default.

    Raises:
        DataError: there is nothing to learn from.
    """
    places = places.of_tools() if config.only_tools else places
    cluster = None if ray.is_initialized() else start(num_cpus=num_cpus or workers)
    made: Any = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(ShardWorker)
    parts = [ray.put(part) for part in places.shards(workers)]
    actors = [made.remote() for _ in parts]

    def ask(weight: np.ndarray, texts: Sequence[int]) -> list[Part]:
        shared = ray.put(weight)
        asked = [actor.gradient.remote(shared, texts, [part]) for actor, part in zip(actors, parts, strict=True)]
        return ray.get(asked, timeout=_PATIENCE)

    try:
        return fit_shared(head, places, config, ask)
    finally:
        for actor in actors:
            ray.kill(actor)
        if cluster is not None:
            cluster.stop()
