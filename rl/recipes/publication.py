"""Which policy of a run is in use: the gate that every new one has to pass."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import DataError
from rl.data.rehearsal import lost
from rl.run import write_json
from rl.serving.published import IN_USE

TOLD = "published.json"


@dataclass(frozen=True, slots=True)
class Publication:
    """A folder in which ``published`` points at the checkpoint in use; one that lost a tool never gets there."""

    folder: Path
    tolerance: float = 0.2
    """How far the figure of a tool may fall."""

    @property
    def current(self) -> Path | None:
        """The checkpoint in use; None before the first."""
        link = self.folder / IN_USE
        return link.resolve() if link.exists() else None

    def told(self) -> dict[str, Any]:
        """What is in use, what it is worth by tool, and what was refused, newest last.

        Raises:
            DataError: the file that says so cannot be read.
        """
        path = self.folder / TOLD
        try:
            return json.loads(path.read_text()) if path.exists() else {"name": None, "tools": {}, "refused": []}
        except ValueError as error:
            raise DataError(f"{path} cannot be read ({error}); remove it to publish anew") from error

    def offer(self, name: str, checkpoint: Path, tools: Mapping[str, float]) -> dict[str, float]:
        """Put a checkpoint into use, unless it got worse at a tool that the one in use knows.

        Args:
            name: of the policy.
            checkpoint: its directory.
            tools: by tool, its figure on held-out queries; those that are missing count as lost.

        Returns:
            The tools that it lost, and how much of each; the one in use stays, if there are any.
        """
        told = self.told()
        missed = lost(told["tools"], tools, tolerance=self.tolerance)
        others = [one for one in told["refused"] if one["name"] != name]
        if missed:
            refused = {"name": name, "lost": {tool: round(fall, 4) for tool, fall in missed.items()}}
            write_json(self.folder / TOLD, {**told, "refused": [*others, refused]})
            return missed
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / f".{IN_USE}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(checkpoint.resolve(), self.folder.resolve()))
        os.replace(fresh, self.folder / IN_USE)
        write_json(self.folder / TOLD, {"name": name, "tools": dict(tools), "refused": others})
        return {}

    def forget(self) -> None:
        """Judge what comes now as if nothing had been offered: whoever offers the same in the same order again is told
        the same again. The checkpoint in use stays so until one takes its place."""
        (self.folder / TOLD).unlink(missing_ok=True)
