"""The pages about one run, in a thread of the process that drives it."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from executors.listening import listen
from rl.pages.app import pages_app


@contextlib.contextmanager
def watched(run: Path, say: Callable[[str], None], *, wanted: bool = True) -> Iterator[None]:
    """Serve the pages about a run while it goes on, at a free port of this machine alone, and say where.

    Args:
        run: its folder.
        say: tells the user a line.
        wanted: nothing is served without.
    """
    if not wanted:
        yield
        return
    with listen(pages_app(run)) as listening:
        say(f"watch it   {listening.url}")
        yield
