"""Learns on two Ray nodes of one machine and kills one in the middle; writes what came of it to a file, as JSON.

A process of its own: Ray's authentication mode is chosen once a process.
"""

import json
import sys
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster

from rl.learner import checkpoint
from rl.learner.learner import Learner, Stage, weights_of
from rl.learner.optimiser import OptimiserConfig
from rl.learner.rank import RankConfig
from rl.learner.remote import LearnerConfig, RemoteLearner, Start
from rl.learner.work import Work, epochs
from rl.losses.objective import Rrhf
from rl.models.load import load_model
from rl.models.tiny import build_model, build_tokenizer
from tests.rl.test_learner import some_examples

STEPS = 12
LOST = 5
"""Steps after which a node is killed."""


def main() -> None:
    folder = Path(sys.argv[1])
    stage = Stage(name="s", objective=Rrhf(), optimiser=OptimiserConfig(kind="adamw", lr=1e-3), steps=STEPS)
    batches = list(epochs(some_examples(30), 6, STEPS, seed=0))
    first = checkpoint.begin(folder / "saved", build_model(300, seed=5), build_tokenizer(["a b c"], vocab_size=300))
    alone = Learner(load_model(first), pad_id=0)
    alone.begin(stage)
    for step, batch in enumerate(batches):
        alone.step(batch, step)

    settings = {"include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, **settings})
    nodes = [cluster.add_node(num_cpus=1, resources={"learner": 1}, object_store_memory=80 << 20) for _ in range(2)]
    try:
        result = learn(folder, cluster, nodes, [*batches], stage, first)
    finally:
        ray.shutdown()
        cluster.shutdown()
    expected, began = weights_of(alone.model), weights_of(load_model(first))
    reached = weights_of(load_model(Path(result.pop("checkpoint"))))
    apart = [np.linalg.norm(reached[n] - expected[n]) / np.linalg.norm(expected[n] - began[n]) for n in expected]
    Path(sys.argv[2]).write_text(json.dumps(result | {"apart": float(max(apart))}))


def learn(folder: Path, cluster: Cluster, nodes: list, batches: list, stage: Stage, first: Path) -> dict:
    """A run on the nodes, one of which is lost in the middle."""
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    rank = RankConfig(folder=str(folder / "saved"), errors=str(folder / "errors"))
    config = LearnerConfig(
        workers=3, min_workers=1, resources={"learner": 1}, rank=rank, storage=str(folder / "train"), name="elastic"
    )
    learner = RemoteLearner(config, Start(str(first), 0), bound=100)
    works = [Work(step=n, stage=stage, stage_step=n, examples=batch, save=True) for n, batch in enumerate(batches)]
    learner.put(works[:LOST])
    learner.wait_saved(LOST)
    before = ranks()
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    learner.put(works[LOST:])
    final = learner.wait_saved(STEPS)
    reported = sorted(learner.reports(STEPS))
    return {"before": before, "after": ranks(), "steps": reported, "checkpoint": final.checkpoint}


def ranks() -> int:
    """Ranks that learn: each takes all that its node has of a resource."""
    total = sum(node["Resources"].get("learner", 0) for node in ray.nodes() if node["Alive"])
    return round(total - ray.available_resources().get("learner", 0))


if __name__ == "__main__":
    main()
