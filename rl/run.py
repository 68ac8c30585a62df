"""What a run leaves behind: a folder that can be read, compared, served and resumed."""

import contextlib
import copy
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from executors.errors import ConfigError, DataError
from rl.driver import note_driver
from rl.storage import require_path
from rollouts.store import append_json

_PACKAGES = ("apprentice", "torch", "ray", "transformers", "trl", "peft", "datasets", "deepspeed", "numpy")


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one run."""

    path: Path

    @classmethod
    def start(
        cls,
        path: Path,
        *,
        config_text: str,
        resolved: Mapping[str, Any],
        resume: bool,
        may_differ: Sequence[str] = (),
    ) -> "Run":
        """Make the folder, or open the one that is to be resumed.

        Args:
            path: of the folder.
            config_text: the config as it was written.
            resolved: and with its defaults.
            resume: whether the run is there already.
            may_differ: key paths, such as those of budgets, that may be others on resuming; they then hold from there.

        Raises:
            ConfigError: it exists and is not to be resumed; it does not exist and is; its config is another; or it is
                the address of an object store.
        """
        require_path(str(path))
        run = cls(path)
        if resume:
            if not run.resolved.is_file():
                raise ConfigError(f"no run to resume at {path}; leave --resume out to start it")
            before, now = run.config(), json.loads(json.dumps(resolved))
            fixed, asked = _without(before, may_differ), _without(now, may_differ)
            if fixed != asked:
                both = fixed.keys() & asked.keys()  # a run of before has none of the keys that came since
                keys = sorted(key for key in fixed.keys() | asked.keys() if key not in both or fixed[key] != asked[key])
                raise ConfigError(
                    f"{path} was started with another config (they differ in {', '.join(keys)}); "
                    "resume with the same one, or start a run of another name"
                )
            if before != now:
                run.resolved.write_text(yaml.safe_dump(now, sort_keys=False))
            note_driver(path)
            return run
        if run.resolved.exists():
            raise ConfigError(f"there is a run at {path} already; --resume continues it, --run-dir names another")
        for folder in ("groups", "checkpoints", "evaluation", "logs"):
            try:
                (path / folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"cannot make the run's folder {path}: {error.strerror}") from error
        (path / "config.yaml").write_text(config_text)
        (path / "environment.json").write_text(json.dumps(_environment(), indent=2))
        run.resolved.write_text(yaml.safe_dump(json.loads(json.dumps(resolved)), sort_keys=False))
        note_driver(path)
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """A run that is there.

        Raises:
            DataError: the folder is none.
        """
        run = cls(path)
        if not run.resolved.is_file():
            what = "no folder" if not path.exists() else "a folder without config.resolved.yaml"
            raise DataError(f"{path} is not a run ({what}); a run is made by 'apprentice train', see runs/")
        return run

    @property
    def resolved(self) -> Path:
        return self.path / "config.resolved.yaml"

    def folder(self, name: str) -> Path:
        """A folder of the run, made where it is missing."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def config(self) -> dict[str, Any]:
        """The config as it was resolved."""
        return yaml.safe_load(self.resolved.read_text())

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        append_json(self.path / "metrics.jsonl", {"time": round(time.time(), 3), **record})

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Every line of metrics.jsonl; one that a crash cut is left out."""
        path = self.path / "metrics.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)

    def finish(self, stage: str, record: Mapping[str, Any]) -> None:
        """Add a finished stage to the ledger, once."""
        if self.finished(stage) is not None:
            return
        append_json(self.path / "ledger.jsonl", {"stage": stage, "time": round(time.time(), 3), **record})

    def finished(self, stage: str) -> dict[str, Any] | None:
        """What the ledger says of a stage that is done; None where it is not."""
        ledger = self.path / "ledger.jsonl"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        for line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a crash
            if record.get("stage") == stage:
                return record
        return None

    def state(self) -> dict[str, Any]:
        """Where the run stands: what ``write_state`` said last."""
        path = self.path / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def write_state(self, **changes: Any) -> None:
        """Change where the run stands, all at once."""
        write_json(self.path / "state.json", {**self.state(), **changes})

    def require_data(self, digests: Mapping[str, str], *, allow_changed: bool = False) -> None:
        """See that the tasks are those that the run began with; the first time, note them.

        Args:
            digests: of the tasks by split.
            allow_changed: take what there is now, from here on.

        Raises:
            DataError: they are others.
        """
        before = self.state().get("data")
        if before is not None and before != digests and not allow_changed:
            split = next(name for name in {**before, **digests} if before.get(name) != digests.get(name))
            raise DataError(
                f"the tasks of {self.path} have changed since it began ({split}: {before.get(split, 'none')} then, "
                f"{digests.get(split, 'none')} now); restore them, start a run of another name, or continue with "
                "--allow-changed-data"
            )
        if before != digests:
            self.write_state(data=dict(digests))

    def link_stage(self, checkpoint: Path) -> Path:
        """A stage's checkpoint under a name of its own in ``checkpoints``: a link that moves with the run's folder."""
        link = self.folder("checkpoints") / f"{checkpoint.parent.name}-{checkpoint.name}"
        fresh = link.with_name(f".{link.name}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(checkpoint.resolve(), link.parent.resolve()))
        os.replace(fresh, link)
        return link

    def point_best(self, checkpoint: Path) -> None:
        """Make ``checkpoints/best`` the given checkpoint."""
        link = self.path / "checkpoints" / "best"
        fresh = link.with_name(".best")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(checkpoint.name)
        os.replace(fresh, link)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is either the old or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json_of(content, indent=2) + "\n")
    os.replace(fresh, path)


def json_of(content: Any, indent: int | None = None) -> str:
    """JSON text; a figure that is none, which JSON has no number for, is null."""
    return json.dumps(_without_nan(content), indent=indent, allow_nan=False)


def _without(config: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """A config without some keys."""
    left = copy.deepcopy(dict(config))
    for path in paths:
        *parents, last = path.split(".")
        node: Any = left
        for key in parents:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return left


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that is none is null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _environment() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, cwd=Path(__file__).parent)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
