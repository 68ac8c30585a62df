"""The examples: each is a config whose check finds nothing wrong, and one is trained for some steps."""

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from executors.executor import Executor
from executors.simulation.server import serve
from rl.config import validate
from rl.data.examples import Encoder
from rl.evaluation.evaluate import Worth
from rl.evaluation.intervals import figures
from rl.learner.learner import Learner, Stage
from rl.learner.optimiser import OptimiserConfig
from rl.losses.objective import Sft
from rl.models.load import build_tokenizer_for
from rl.models.tiny import build_model
from rl.recipes.demonstrations import Demonstrations, tokenizer_texts
from rl.recipes.own import own_content
from rl.recipes.prepared import prepare
from rl.recipes.trained import check_config
from rl.recipes.trial import trials
from rl.recipes.trice import TriceConfig
from rollouts.types import Group
from rollouts.worker import WorkerConfig
from tests.rewards.attempts import attempt

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch) -> Iterator[None]:
    """Where a user types the commands; what is imported there stays in no other test's way."""
    monkeypatch.chdir(EXAMPLES.parent)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("examples.")]:
        del sys.modules[name]


def checked(path: str) -> str:
    """What ``apprentice check`` says of a file."""
    config = load(path)
    benchmark = prepare(config)
    return "\n".join([*check_config(config, benchmark), *trials(config, benchmark, colour=False)])


def load(path: str) -> TriceConfig:
    return validate(own_content(Path(path)), TriceConfig, path)


@pytest.mark.parametrize(
    ("path", "tool", "rewards"),
    [
        ("examples/my_tools.py", "price: a gold call ok; no arguments bad_call", "gold 1.00, empty 0.00"),
        ("examples/stock_room.py", "take: a gold call ok; no arguments bad_call", "gold 1.00, empty 0.00"),
        ("examples/mcp/tools.py", "parcels__where: a gold call ok; no arguments bad_call", "gold 1.10"),
        ("examples/blackjack.py", "step: a gold call ok; no arguments bad_call", "empty -1.00"),
    ],
)
def test_the_check_of_an_example_finds_nothing_wrong(path, tool, rewards):
    said = checked(path)
    assert re.search(r"(\d+) of \1 gold attempts are right", said)
    assert f"tool       {tool}" in said
    assert rewards in said
    assert "warning" not in said


def test_the_openapi_example_asks_a_real_server(monkeypatch):
    with serve({"library": EXAMPLES / "openapi" / "library.yaml"}) as served:
        monkeypatch.setenv("LIBRARY_URL", f"{served.url}/library")
        said = checked("examples/openapi/tools.py")
    assert re.search(r"(\d+) of \1 gold attempts are right", said)
    assert "tool       get_book: a gold call ok; no arguments bad_call" in said
    assert "tool       list_loans: a gold call ok; no arguments bad_call" in said
    assert "warning" not in said


def test_the_stock_room_asks_for_the_boxes_and_not_only_for_the_number():
    config = load("examples/stock_room.py")
    benchmark = prepare(config)
    said = "\n".join(trials(config, benchmark, colour=False))
    assert "boxes are on the shelf." in said
    task = benchmark.train[0]
    told, done = attempt(answer=task.answer), attempt(answer=task.answer, environment_reward=1.0)
    assert [reward.value for reward in config.rewards.rewards(Group(task, (told, done)))] == [0.5, 1.0]


def test_an_example_is_learned_from_without_ray(tmp_path):
    """Its demonstrations are really executed, made to tokens, and imitated for some steps."""
    config = load("examples/my_tools.py")
    benchmark, format = prepare(config), config.format.build()
    executor = partial(Executor, benchmark.catalog)
    written = Demonstrations(
        config,
        benchmark,
        format,
        lambda policies, form: WorkerConfig(policies=policies, executor=executor, format=form),
    )
    specs = {spec.name: spec for spec in benchmark.catalog.specs()}
    tokenizer = build_tokenizer_for(
        config.model, tokenizer_texts(benchmark, format), format.markers(list(specs.values()))
    )
    examples = Encoder(tokenizer, format, specs, max_tokens=128).examples(
        written.annotated(0, config.cloning.annotators)
    )
    assert len(examples) > 500
    learner = Learner(build_model(len(tokenizer), width=32, layers=1, heads=2), pad_id=0)
    learner.begin(Stage(name="clone", objective=Sft(), optimiser=OptimiserConfig(lr=1e-2), steps=12))
    losses = [learner.step(examples[16 * step : 16 * step + 16], step)["loss"] for step in range(12)]
    assert losses[-1] < losses[0] - 1


def test_what_environments_say_is_measured_on_held_out_tasks():
    measure = load("examples/stock_room.py").evaluation
    assert isinstance(measure, Worth)
    task = prepare(load("examples/stock_room.py")).test[0]
    (source,) = measure.sources()
    said = [1.0, 0.0, None, 1.0]
    attempts = [attempt(source.name, task.answer, environment_reward=worth) for worth in said]
    attempts.append(attempt(source.name, None, stop="failed"))
    ratios = measure.ratios([Group(task, (one,)) for one in attempts])
    shown = {name: figure.value for name, figure in figures(ratios).items()}
    assert (shown["worth"], shown["utility"], shown["accuracy"]) == (0.5, 0.5, 1.0)
