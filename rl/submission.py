"""The ``ray job submit`` line of a run, composed so that nothing travels that should not."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from executors.errors import ConfigError

EXCLUDED = (".git", ".venv", "venv", "runs", "node_modules", "__pycache__", "*.safetensors", "*.egg-info", ".*_cache")
"""What of a working directory no job needs."""
_MOST = 100 * 2**20
"""Bytes beyond which Ray itself refuses a working directory."""
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")


@dataclass(frozen=True, slots=True)
class Submission:
    """One job."""

    command: tuple[str, ...]
    """The whole line, word by word."""
    size: int
    """Bytes of the working directory that would travel."""
    largest: tuple[tuple[str, int], ...]
    """The largest files of them."""

    @property
    def line(self) -> str:
        """As a shell reads it."""
        return shlex.join(self.command)


def compose(
    arguments: Sequence[str],
    *,
    address: str | None = None,
    folder: Path = Path(),
    variables: Sequence[str] = (),
    name: str | None = None,
) -> Submission:
    """A job that runs ``apprentice`` with some arguments on a cluster.

    Args:
        arguments: such as ``["train", "config.yaml", "seed=1"]``.
        address: of the cluster's dashboard, such as ``http://head:8265``; by default what ``RAY_ADDRESS`` says.
        folder: the working directory, which the job gets a copy of.
        variables: of this environment that the job gets. Their values stand in the job's description, which everyone
            who may see the dashboard reads: secrets belong into the cluster's own environment.
        name: of the submission; Ray makes one otherwise.

    Raises:
        ConfigError: a variable is not set or looks like a secret, there is too much to travel, or a path in the
            arguments leads out of the folder.
    """
    for variable in variables:
        if variable not in os.environ:
            raise ConfigError(f"--env {variable}: it is not set here")
        if any(word in variable.upper() for word in _SECRETS):
            raise ConfigError(
                f"--env {variable}: a job's variables are shown in the dashboard; set it where the cluster starts"
            )
    _require_inside(arguments, folder)
    files = sorted(_travelling(folder), key=lambda found: -found[1])
    size = sum(found[1] for found in files)
    largest = tuple((str(path.relative_to(folder)), bytes) for path, bytes in files[:3])
    if size > _MOST:
        shown = ", ".join(f"{path} ({bytes / 2**20:.0f} MiB)" for path, bytes in largest)
        raise ConfigError(
            f"{size / 2**20:.0f} MiB of {folder.resolve()} would travel, and Ray takes {_MOST / 2**20:.0f}; the "
            f"largest are {shown}: keep them elsewhere, or submit from a smaller folder"
        )
    environment = {"excludes": list(EXCLUDED), "env_vars": {name: os.environ[name] for name in variables}}
    command = ["ray", "job", "submit"]
    command += ["--address", address] if address else []
    command += ["--submission-id", name] if name else []
    command += ["--working-dir", str(folder), "--runtime-env-json", json.dumps(environment)]
    return Submission((*command, "--", "python", "-m", "rl", *arguments), size, largest)


def _require_inside(arguments: Sequence[str], folder: Path) -> None:
    for argument in arguments[1:]:
        path = Path(argument)
        if "=" in argument or path.suffix not in (".yaml", ".yml", ".py"):
            continue
        if not (folder / path).is_file():
            raise ConfigError(f"there is no {argument} in {folder.resolve()}, which is what travels")
        if path.is_absolute() or ".." in path.parts:
            raise ConfigError(f"{argument} is not below {folder.resolve()}, and only that travels; name it from there")


def _travelling(folder: Path) -> list[tuple[Path, int]]:
    """The files that are not excluded, with their sizes."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not any(Path(name).match(pattern) for pattern in EXCLUDED)]
        for name in files:
            path = Path(root) / name
            if not any(Path(name).match(pattern) for pattern in EXCLUDED) and path.is_file():
                found.append((path, path.stat().st_size))
    return found
