"""What a user sees of a run: one short block a stage, a live line while it lasts, plain lines where nobody watches."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_SHOWN = ("loss", "rank_accuracy", "accuracy", "utility", "call_rate", "needless", "missed", "malformed")


class Progress:
    """Writes to the console; 40 lines at most for a whole run."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._began = time.time()
        self._last: dict[str, float] = {}

    def head(self, name: str, folder: Path, resumed: bool) -> None:
        """The first line of a run."""
        self.console.print(f"[bold]{name}[/] {'goes on' if resumed else 'begins'} in {folder}")

    def close(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """The last lines: what changed, where the run lies, what to do next."""
        change = summary.get("change", {})
        for name in ("decisions", "needless", "missed", "utility", "accuracy", "correct", "wellformed", "api_match"):
            if name in change and name in summary.get("final", {}):
                before, after, by = summary["start"][name], summary["final"][name], change[name]
                self.line(
                    f"{name:<10} {before['value']:.3f} -> {after['value']:.3f}   "
                    f"{by['value']:+.3f}, 95% [{by['low']:+.3f}, {by['high']:+.3f}]"
                )
        self.console.print(f"[bold]Done[/] in {time.time() - self._began:.0f} s. Next:")
        self.line(f"look at    {folder}/report.html")
        self.line(f"talk to it apprentice chat {folder}")
        self.line(f"serve it   apprentice serve {folder}")

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """A block: its title, a live bar where someone watches, and what is said within."""
        self.console.print(f"[bold cyan]{title}[/]")
        began = time.time()
        self._last = {}
        if not self.console.is_terminal:
            yield
            self.line(f"done in {time.time() - began:.0f} s")
            return
        columns = (TextColumn("  "), BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn())
        with Bar(*columns, console=self.console, transient=True) as self._bar:
            self._task = self._bar.add_task("starting", total=None)
            try:
                yield
            finally:
                self._bar.update(self._task, visible=False)
        self._bar = self._task = None
        self.line(f"done in {time.time() - began:.0f} s")

    def update(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Move the bar; figures are averaged over the last updates so that they can be read."""
        if self._bar is None or self._task is None:
            return
        for name in _SHOWN:
            if name in metrics:
                before = self._last.get(name, metrics[name])
                self._last[name] = 0.8 * before + 0.2 * metrics[name]
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in self._last.items())
        self._bar.update(self._task, completed=done, total=total, description=f"{done}/{total}  {figures}")

    def line(self, text: str) -> None:
        """One line of the block."""
        self.console.print(f"  {text}")
