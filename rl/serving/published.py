"""The checkpoints in a run's folder, as the process that trains publishes them there: files alone, whole or absent."""

import json
from dataclasses import dataclass
from pathlib import Path

from executors.errors import DataError
from rl.learner import checkpoint
from rl.models.load import is_adapter, is_model
from rl.models.lora import BASE, base_of

BEST, NEWEST = "best", "newest"
"""Choices of a checkpoint that may come to mean another one while the run goes on."""
IN_USE = "published"
"""The link to the checkpoint that a run has put into use, of recipes that have a gate before that."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that can be served."""

    id: str
    """Within the run, such as ``step-40``."""
    path: Path
    base: Path
    """The directory of the model; of an adapter that which it belongs to, else the checkpoint's own."""
    version: int
    """The step that it was saved at; 0 where it does not say."""
    saved: int
    """When, in nanoseconds: weights that were saved anew at the same place are others."""
    base_saved: int
    """When the model was, the adapter apart."""

    @property
    def adapter(self) -> bool:
        """Whether it is the adapter of a model that is elsewhere."""
        return self.base != self.path


class Published:
    """A folder of checkpoints, and which of them answers by default."""

    def __init__(self, folder: Path, choice: str = BEST, *, staged: bool = False) -> None:
        """
        Args:
            folder: with ``step-N`` and perhaps ``best`` in it.
            choice: ``best``, as the run judges, and the newest while it has not judged yet; ``newest``; or the name of
                one in the folder.
            staged: whether each stage of the run has a folder of its own in there; its name is then that of the last
                checkpoint in it.
        """
        self.folder = folder
        self.choice = choice
        self.staged = staged

    def default(self) -> Checkpoint:
        """The one that answers by default, as the folder is now.

        Raises:
            DataError: it is not there.
        """
        if self.choice in (BEST, NEWEST):
            best = self._best() if self.choice == BEST else None
            found = best or next(iter(self._saved()), None)
        else:
            found = self.find(self.choice)
        if found is None:
            there = ", ".join(one.id for one in self._saved()) or "none"
            raise DataError(f"{self.folder.parent} has no checkpoint {self.choice!r}; there are: {there}")
        return found

    def find(self, id: str) -> Checkpoint | None:
        """The checkpoint of a name; None where the folder has none, or not the whole of it."""
        if id == BASE:
            return self._base()
        if not id or "/" in id or id.startswith("."):
            return None
        return self._find(id)

    def _find(self, id: str) -> Checkpoint | None:
        path = (self.folder / id).resolve()
        if self.staged and not is_model(path):
            steps = {int(found.name[5:]): found for found in path.glob("step-*") if found.name[5:].isdecimal()}
            path = steps[max(steps)] if steps else path
        return _read(path, id)

    def every(self) -> list[Checkpoint]:
        """All that can be served, newest first, what training began with last."""
        base = self._base()
        return [*self._saved(), *([base] if base else [])]

    def _best(self) -> Checkpoint | None:
        best = (self.folder / (BEST if (self.folder / BEST).exists() else IN_USE)).resolve()
        return _read(best) if best.parent == self.folder.resolve() else _read(best, self._stage(best) or BEST)

    def _stage(self, path: Path) -> str:
        """The stage that a checkpoint is of; empty where stages have no folders."""
        return path.parent.name if self.staged and path.parent.parent == self.folder.resolve() else ""

    def _saved(self) -> list[Checkpoint]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        names = [path.name for path in paths if not (self.staged and path.is_symlink())]
        found = [self.find(name) for name in names if name not in (BEST, IN_USE, BASE)]
        steps = 0 if self.staged else 1  # those of several stages say nothing of which is newer
        return sorted(filter(None, found), key=lambda one: (one.version * steps, one.saved), reverse=True)

    def _base(self) -> Checkpoint | None:
        """What training began with: the model without any adapter, or the first checkpoint."""
        adapted = next((one for one in self._saved() if one.adapter), None)
        first = self.folder / "step-0"
        if self.staged and not first.exists():
            return self._find(BASE)
        return _read(adapted.base if adapted else first, BASE)


def read_adapter(path: Path, id: str) -> Checkpoint:
    """An adapter from elsewhere, in PEFT's format.

    Raises:
        DataError: the directory holds none.
    """
    if not is_adapter(path):
        raise DataError(
            f"{path} is no adapter directory: it has no adapter_config.json; PEFT's save_pretrained writes one"
        )
    found = _read(path.resolve(), id)
    assert found is not None
    return found


def _read(path: Path, id: str = "") -> Checkpoint | None:
    """The checkpoint in a directory; None where there is none, or only a part of one."""
    try:
        if not is_model(path) or ((path / checkpoint.MANIFEST).is_file() and not checkpoint.is_complete(path)):
            return None
        noted = path / "apprentice.json"
        version = int(json.loads(noted.read_text()).get("step", 0)) if noted.is_file() else 0
        base = base_of(path).resolve() if is_adapter(path) else path
        return Checkpoint(id or path.name, path, base, version, path.stat().st_mtime_ns, base.stat().st_mtime_ns)
    except (OSError, ValueError):  # it is being removed
        return None
