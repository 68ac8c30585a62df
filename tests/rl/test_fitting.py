"""Fits of a recipe on ranks: what one process learns, two that share the model out learn too; and configs of them."""

from pathlib import Path

import pytest
import torch

from executors.errors import ConfigError
from rl.config import read_yaml, validate
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Sft
from rl.models.load import load_model
from rl.models.tiny import build_model, build_tokenizer
from rl.progress import Progress
from rl.recipes.fitting import Fitter
from rl.recipes.joined import Joined
from rl.recipes.parts import Cluster, LearnerSettings
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolgen import train as toolgen
from rl.recipes.toolgen_config import ToolGenConfig
from rl.run import Run
from tests.rl.test_learner import some_examples

ADAMW = {"kind": "adamw", "lr": 1e-3}


def job(start, folder, name: str, steps: int = 4, **fields) -> AloneJob:
    stage = Stage(name=name, objective=Sft(), optimiser=OptimiserConfig(**ADAMW), steps=steps)
    examples = tuple(some_examples(12))
    return AloneJob(
        start=str(start), folder=str(folder), examples=examples, stage=stage, batch_size=4, seed=3, **fields
    )


@pytest.fixture
def start(tmp_path):
    tokenizer = build_tokenizer(["a b c"], vocab_size=300)
    return checkpoint.save(tmp_path / "start", 0, build_model(300, seed=5), tokenizer, {"stage": None})


def fitter(settings: LearnerSettings | None, run: Run) -> Fitter:
    return Fitter(settings, Joined(Cluster(), run, Progress()), run, Progress())


@pytest.mark.ray
@pytest.mark.slow
def test_two_ranks_of_zero2_fit_what_one_process_fits(tmp_path, start):
    run = Run.start(tmp_path / "run", config_text="", resolved={}, resume=False)
    settings = LearnerSettings(workers=2, strategy="zero2")
    alone = fit_alone(job(start, tmp_path / "alone", "one"))
    with Joined(Cluster(num_cpus=4, object_store_mib=100, dashboard=False), run, Progress()) as cluster:
        ranks = Fitter(settings, cluster, run, Progress())
        shared = ranks.fit(job(start, tmp_path / "ranks", "one"))
        again = ranks.fit(job(start, tmp_path / "ranks", "one"))
    assert again == shared and shared.tokens > 0 and shared.cpu_seconds > 0
    assert shared.loss == pytest.approx(alone.loss, rel=1e-3)
    theirs = dict(load_model(Path(shared.path)).named_parameters())
    for name, ours in load_model(Path(alone.path)).named_parameters():
        assert torch.allclose(ours, theirs[name], atol=2e-5), name
    assert checkpoint.steps(tmp_path / "ranks") == [4]


def test_without_a_learner_section_a_fit_is_this_processs(tmp_path, start):
    run = Run.start(tmp_path / "run", config_text="", resolved={}, resume=False)
    made = fitter(None, run).fit(job(start, tmp_path / "one", "one", steps=1))
    assert made == fit_alone(job(start, tmp_path / "one", "one", steps=1))


def test_single_tokens_are_not_learned_on_ranks(tmp_path, start):
    run = Run.start(tmp_path / "run", config_text="", resolved={}, resume=False)
    with pytest.raises(ConfigError, match="one process"):
        fitter(LearnerSettings(), run).fit(job(start, tmp_path / "one", "one", rows=(1,)))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"learner": {"strategy": "zero3"}}, r"learning\.optimiser: muon needs whole matrices"),
        ({"learner": {"workers": 9}}, r"9 ranks cannot share learning's batch of 8"),
        ({"learner": {"workers": 2}, "ray": {"num_cpus": 2}}, r"ray\.num_cpus: 2 are too few for 2 ranks"),
    ],
)
def test_fits_that_ranks_cannot_do_are_refused(settings, says):
    content = {"recipe": "toolalpaca", "name": "x", "learning": {"optimiser": {"kind": "muon"}}, **settings}
    with pytest.raises(ConfigError, match=says):
        validate(content, ToolAlpacaConfig, "x")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"learner": {"strategy": "zero3"}}, r"memorisation\.optimiser: muon needs whole matrices"),
        ({"learner": {"workers": 17}}, r"17 ranks cannot share memorisation's batch of 16"),
        ({"learner": {}, "fitting": {"precision": "bf16"}}, r"fitting\.precision: the ranks fit the stages"),
        ({"model": {"kind": "tiny", "adapter": {"kind": "qlora"}}}, r"set fitting\.gpu: true"),
        ({"model": {"kind": "tiny", "adapter": {"kind": "qlora"}}, "learner": {}}, r"set learner\.gpu: true"),
    ],
)
def test_stages_of_toolgen_that_ranks_cannot_do_are_refused(settings, says):
    content = {"recipe": "toolgen", "name": "x", "memorisation": {"optimiser": {"kind": "muon"}}, **settings}
    with pytest.raises(ConfigError, match=says):
        validate(content, ToolGenConfig, "x")


@pytest.mark.ray
@pytest.mark.slow
def test_toolgen_s_stages_are_fitted_on_ranks_as_in_one_process(tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    none = {"steps": 0}
    content = read_yaml(Path("examples/toolgen/config.yaml")) | {
        "memorisation": {"steps": 3, "batch_size": 4, "optimiser": ADAMW},
        "retrieval": none,
        "model": {"kind": "tiny", "width": 16, "heads": 2, "vocab_size": 400, "max_length": 160},
    }
    ranks = {"learner": {"workers": 2, "strategy": "zero2"}, "ray": {"num_cpus": 4, "dashboard": False}}
    found = {}
    for name, more in (("alone", {}), ("ranks", ranks)):
        run = Run.start(tmp_path / name, config_text="", resolved={}, resume=False)
        found[name] = toolgen(validate(content | more, ToolGenConfig, "x"), run, Progress())
    assert found["ranks"]["start"] == found["alone"]["start"]
    place = Path("checkpoints") / "memorisation" / "step-3"
    theirs = dict(load_model(tmp_path / "ranks" / place).named_parameters())
    for name, ours in load_model(tmp_path / "alone" / place).named_parameters():
        assert torch.allclose(ours, theirs[name], atol=2e-5), name


def test_the_full_config_shares_the_model_out():
    full = Path(__file__).parents[2] / "configs" / "toolalpaca" / "full.yaml"
    config = validate(read_yaml(full), ToolAlpacaConfig, "full")
    assert config.learner is not None
    assert (config.learner.strategy, config.learner.footprint.precision) == ("zero3", "bf16")
    assert set(config.corpus.writers.parts.values()) == {"teacher"}
