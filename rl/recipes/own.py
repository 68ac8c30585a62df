"""A run from one Python file of a user's: its tools, tasks and reward, and defaults for all else."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from executors.errors import ConfigError
from executors.own_file import load_own_file

DEFAULTS: dict[str, Any] = {
    "recipe": "trice",
    "model": {"kind": "tiny", "vocab_size": 512},
    "cloning": {"steps": 500, "demonstrator": {"call_rate": {}}},
    "sources": [
        {"name": "forced-direct", "policy": "live", "force": "direct"},
        {"name": "forced-call", "policy": "live", "force": "call", "temperature": 0.6},
        {"name": "own", "policy": "live", "count": 2, "temperature": 1.0},
        {"name": "gold", "policy": "gold"},
    ],
    "improvement": {
        "rounds": 8,
        "tasks_per_round": 64,
        "batch_size": 16,
        "optimiser": {"kind": "muon", "lr": 0.0003, "muon_lr": 0.002, "warmup": 0.08, "floor": 0.1},
    },
}


def own_content(path: Path) -> dict[str, Any]:
    """The config that a file stands for, before it is validated.

    Raises:
        ConfigError: the file fails, or its ``config`` is no mapping.
    """
    module = load_own_file(path)
    given = getattr(module, "config", {})
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: config is a {type(given).__name__}; it is a dictionary of keys, as a YAML config")
    content = {"name": path.stem.replace("_", "-"), "tasks": {"kind": "own", "path": str(path)}, **DEFAULTS}
    if callable(getattr(module, "reward", None)):
        content["rewards"] = {"kind": "own", "path": str(path)}
    return _laid_over(content, given)


def write_starter(path: Path) -> None:
    """Write a file to begin with.

    Raises:
        ConfigError: there is one already, or its name is no module's.
    """
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ConfigError(f"{path}: name a Python file whose name is letters, digits and _, such as my_tools.py")
    if path.exists():
        raise ConfigError(f"{path} is there already; name another file")
    text = (files("rl.recipes") / "starter.py").read_text().replace("my_tools.py", str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _laid_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A config with another laid over it, mapping by mapping; a mapping of another kind takes the place of the old."""
    made = dict(base)
    for key, value in over.items():
        old = made.get(key)
        same = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        )
        made[key] = _laid_over(old, value) if isinstance(old, dict) and same else value
    return made
