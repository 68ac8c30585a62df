"""A model that reads less than its tasks take is told of at once, with what they take."""

import pytest

from executors.errors import ConfigError
from rl.config import validate
from rl.progress import Progress
from rl.recipes.lengths import require_lengths
from rl.recipes.parts import TriceConfig
from rl.recipes.prepared import prepare
from rl.recipes.ste import train
from rl.recipes.ste_config import SteConfig
from rl.recipes.trained import check_config
from rl.run import Run


def of_arithmetic(max_length: int) -> TriceConfig:
    content = {
        "recipe": "trice",
        "name": "x",
        "tasks": {"kind": "arithmetic", "demonstrations": 50, "train": 20, "validation": 5, "test": 5},
        "model": {"kind": "tiny", "vocab_size": 400, "max_length": max_length},
        "cloning": {"steps": 10},
        "sources": [{"name": "gold", "policy": "gold"}],
        "improvement": {"rounds": 1, "tasks_per_round": 8, "batch_size": 4},
    }
    return validate(content, TriceConfig, "x.yaml")


def test_prompts_that_do_not_fit_are_told_with_how_long_they_are():
    config = of_arithmetic(16)
    with pytest.raises(ConfigError, match=r"16 tokens, and (3\d|4\d) of 50 prompts .*the longest \d\d: raise"):
        require_lengths(config, prepare(config))
    with pytest.raises(ConfigError, match=r"model\.max_length"):
        list(check_config(config))
    enough = of_arithmetic(64)
    require_lengths(enough, prepare(enough))


def test_demonstrations_of_known_tools_that_do_not_fit_end_a_run_of_ste_before_it_explores(tmp_path):
    content = {
        "recipe": "ste",
        "name": "x",
        "tools": ["calculator", "dates"],
        "known": {"tools": ["calculator"], "demonstrations": 6},
        "model": {"kind": "tiny", "vocab_size": 400, "max_length": 16},
    }
    run = Run.start(tmp_path / "run", config_text="", resolved={}, resume=False)
    with pytest.raises(ConfigError, match="demonstrations of known tools are longer"):
        train(validate(content, SteConfig, "x.yaml"), run, Progress())
    assert not list(run.path.glob("checkpoints/base/step-[1-9]*")) and not list(run.path.glob("explored*"))
