"""Where policies are played, and what becomes of stragglers, as a config says."""

from pathlib import Path
from typing import Any

import pytest

from executors.errors import ConfigError
from rl.config import override, read_yaml, validate
from rl.planning.plan import plan
from rl.progress import Progress
from rl.recipes import session as sessions
from rl.recipes.trice import TriceConfig
from rl.run import Run
from rollouts.remote import Stragglers

CHANGES = [
    "policies.big={kind: huggingface, path: /m/8B}",
    "policies.big.place={workers: 2, cpus: 1.5, gpus: 1, resources: {big_gpu: 1}}",
    "sources.4.policy=big",
    "peers={}",
    "ray.num_cpus=12",
    "rollouts.resources={rollout_node: 1}",
    "rollouts.cut={share: 0.8, factor: 3.0, seconds: 5.0}",
]


def config(*changes: str) -> TriceConfig:
    return validate(override(read_yaml(Path("configs/trice/tiny.yaml")), changes), TriceConfig, "test")


def test_a_policy_with_a_place_has_workers_of_its_own_and_stragglers_are_cut_as_the_config_says(tmp_path, monkeypatch):
    opened: dict[str, Any] = {}

    class Pool:
        def __init__(self, kinds, **options):
            opened.update(kinds=kinds, **options)

        def stop(self) -> None: ...

    monkeypatch.setattr(sessions, "RolloutPool", Pool)
    made = config(*CHANGES)
    benchmark = made.tasks.load(0)
    run = Run.start(tmp_path / "run", config_text="", resolved={}, resume=False)
    sessions.Session(made, benchmark, run, Progress()).open_pool({})
    big, local = opened["kinds"]["big"], opened["kinds"]["local"]
    assert (big.count, big.cpus, big.gpus, dict(big.resources)) == (2, 1.5, 1, {"big_gpu": 1})
    assert set(big.config.policies) == {"big"}
    assert big.config.policies["big"].gpu
    assert "big" not in local.config.policies and "live" in local.config.policies
    assert dict(local.resources) == {"rollout_node": 1}
    assert opened["stragglers"] == Stragglers(share=0.8, factor=3.0, seconds=5.0)


def test_placed_policies_count_among_the_cpus_and_stand_in_the_plan():
    with pytest.raises(ConfigError, match=r"4 are too few .* and 3 for executor pools and placed policies"):
        config(*CHANGES, "ray.num_cpus=4")
    lines = "\n".join(plan(config(*CHANGES)))
    assert "big                           2   1.5     1" in lines


def test_by_default_nothing_is_cut_and_nothing_is_placed():
    made = config()
    assert made.rollouts.cut is None and made.rollouts.resources == {}
