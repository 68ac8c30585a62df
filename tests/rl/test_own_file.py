"""A user's own tool, reward and tasks in one Python file."""

import sys
from pathlib import Path

import pytest

from executors.errors import ConfigError, DataError
from executors.own_file import load_own_file
from rewards.own import own_reward
from rl.config import override, validate
from rl.data.tasks.own import OwnFile
from rl.recipes.own import own_content, write_starter
from rl.recipes.prepared import prepare
from rl.recipes.trained import check_config
from rl.recipes.trial import trials
from rl.recipes.trice import TriceConfig
from rollouts.types import Task
from tests.rewards.attempts import attempt

TOOL = '''
def double(number: int) -> str:
    """Double a number.

    Args:
        number: to double.
    """
    return str(2 * number)


tools = [double, "calculator"]
'''
TASKS = """
tasks = [{"prompt": f"Twice {n}?", "answer": str(2 * n), "call": {"tool": "double", "arguments": {"number": n}}}
         for n in range(120)]
"""


@pytest.fixture(autouse=True)
def _nothing_stays_importable(monkeypatch):
    """What a test makes importable is so for that test alone, and for no process that is started later."""
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def own(tmp_path):
    """Writes a file of a name that no other test has, and gives its path."""
    written: list[str] = []

    def write(text: str) -> Path:
        path = tmp_path / f"own_{len(written)}_{tmp_path.name.replace('-', '_')}.py"
        path.write_text(text)
        written.append(path.stem)
        return path

    yield write
    for name in written:
        sys.modules.pop(name, None)


def load(path: Path, *changes: str) -> TriceConfig:
    return validate(override(own_content(path), changes), TriceConfig, str(path))


def test_the_starter_is_a_config_whose_check_finds_nothing_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_starter(Path("starter_file.py"))
    config = load(Path("starter_file.py"))
    lines = [*check_config(config), *trials(config, prepare(config), colour=False)]
    sys.modules.pop("starter_file")
    text = "\n".join(lines)
    assert "gold       200 of 200 gold attempts are right" in text
    assert "«to_fahrenheit(" in text
    assert "tool       to_fahrenheit: a gold call ok; no arguments bad_call; a list for each bad_call" in text
    assert "rewards    gold 1.00, empty 0.00" in text
    assert "warning" not in text
    assert (config.name, config.rewards.kind) == ("starter-file", "own")


def test_a_starter_never_takes_the_place_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1")
    with pytest.raises(ConfigError, match="is there already"):
        write_starter(path)
    assert path.read_text() == "x = 1"
    with pytest.raises(ConfigError, match="letters, digits and _"):
        write_starter(tmp_path / "my-tools.py")


def test_a_files_config_is_laid_over_the_defaults_key_by_key(own):
    path = own(TOOL + TASKS + 'config = {"cloning": {"steps": 7}, "model": {"kind": "tiny", "width": 32}}')
    config = load(path, "improvement.rounds=3")
    assert (config.cloning.steps, config.improvement.rounds, config.model.width) == (7, 3, 32)
    assert config.improvement.tasks_per_round == 64
    assert config.rewards.kind == "weighted"  # it has no reward of its own


def test_tools_of_the_file_stand_beside_built_in_ones(own):
    tasks = OwnFile(path=str(own(TOOL + TASKS)))
    assert tasks.catalog().names == ("double", "calculator")
    benchmark = tasks.load(0)
    assert len(benchmark.train) + len(benchmark.validation) + len(benchmark.test) == 120
    assert benchmark.train[0].gold is not None


def test_tasks_may_be_a_function_of_the_seed_and_task_values(own):
    path = own(
        TOOL
        + """
from rollouts.types import Task

def tasks(seed):
    return [Task(id=f"{seed}-{n}", prompt=f"Say {n}", answer=str(n)) for n in range(100)]
"""
    )
    assert OwnFile(path=str(path)).load(5).train[0].id.startswith("5-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1/0", r"line 1, in <module>: ZeroDivisionError"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("x = 1", "has no list 'tools'"),
        ("tools = [3]", "tools holds 3|is a int, not a tool"),
        ("tools = [lambda x: x]", "has no name in the file"),
        (TOOL, "has no 'tasks'"),
        (TOOL + "tasks = []", "has no 'tasks'"),
        (TOOL + "def tasks():\n    raise KeyError('gone')", "tasks fails: line .*in tasks: KeyError"),
        (TOOL + "tasks = [{'question': 'x', 'answer': 1}, {'prompt': 3}]", "row 2: no prompt"),
        (TOOL + "tasks = [{'prompt': 'x', 'answer': {}}]", "row 1: an answer is a text"),
        (
            TOOL + "tasks = [{'prompt': 'x', 'answer': 1, 'call': {'tool': 'double', 'arguments': {'n': 1}}}]",
            "row 1: its call",
        ),
        (TOOL + TASKS + "config = 3", "config is a int"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_line_or_the_row(own, text, message):
    with pytest.raises((ConfigError, DataError), match=message):
        prepare(load(own(text)))


def test_a_file_that_is_not_there_or_no_module_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="apprentice init"):
        load_own_file(tmp_path / "none.py")
    odd = tmp_path / "my-tools.py"
    odd.write_text("")
    with pytest.raises(ConfigError, match="no module's name"):
        load_own_file(odd)
    taken = tmp_path / "json.py"
    taken.write_text("")
    with pytest.raises(ConfigError, match="'json' is a module of Python's own; rename it"):
        load_own_file(taken)
    assert str(tmp_path) not in sys.path
    imported = tmp_path / "pytest.py"
    imported.write_text("")
    with pytest.raises(ConfigError, match="rename the file"):
        load_own_file(imported)


def test_a_reward_is_a_number_or_the_sum_of_its_parts(own):
    task, episode = Task(id="t", prompt="?", answer="1"), attempt(answer="1")
    assert own_reward(str(own("def reward(task, episode): return 0.5")), task, episode).value == 0.5
    parts = own_reward(str(own("def reward(task, episode): return {'a': 1, 'b': -0.25}")), task, episode)
    assert (parts.value, dict(parts.parts)) == (0.75, {"a": 1.0, "b": -0.25})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def reward(task, episode): return 'good'", "gives 'good' for 'reward'"),
        ("def reward(task, episode): return float('nan')", "gives nan"),
        ("def reward(task, episode):\n    return episode.nothing", "line 2, in reward: AttributeError"),
        ("x = 1", "has no function reward"),
    ],
)
def test_a_reward_that_fails_is_told_with_its_line(own, text, message):
    with pytest.raises((ConfigError, DataError), match=message):
        own_reward(str(own(text)), Task(id="t", prompt="?"), attempt(answer="1"))


def test_a_reward_that_prefers_nothing_is_warned_of(own):
    path = own(TOOL + TASKS + "def reward(task, episode): return 1.0")
    config = load(path)
    lines = list(trials(config, prepare(config), colour=False))
    assert any("every attempt at a task has the same reward" in line for line in lines)


def test_a_reward_that_does_not_prefer_gold_is_warned_of(own):
    path = own(TOOL + TASKS + "def reward(task, episode): return len(episode.turns) * -1.0")
    config = load(path)
    lines = list(trials(config, prepare(config), colour=False))
    assert any("empty" in line and "rewarded as well as gold" in line for line in lines)
