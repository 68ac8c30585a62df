"""The ranked groups that a run left, and what its config says of them: what there is to export."""

from collections.abc import Callable, Iterator
from pathlib import Path

from executors.errors import DataError
from rewards.types import RankedGroup
from rl.config import validate
from rl.data.conversations import Setting
from rl.data.rounds import GROUPS, RoundGroup
from rl.recipes.trice import TriceConfig
from rl.run import Run
from rollouts.store import Damage, Log, damaged
from rollouts.types import Group


class Logged:
    """A run's log of groups: those that were learned from, or those of an evaluation, ranked as the run ranks."""

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: a run's folder, or a log in one, such as ``runs/NAME/evaluation/final.jsonl``.

        Raises:
            DataError: it is no run, and no log of one.
        """
        run = _run_of(path)
        if (recipe := run.config().get("recipe", "trice")) != "trice":
            raise DataError(f"{run.path} is a run of {recipe}; ranked attempts are read from runs of trice alone")
        config = validate(run.config(), TriceConfig, str(run.resolved))
        self.path = run.path / GROUPS if path == run.path else path
        if not self.path.is_file() and not list(self.path.parent.glob(f"{self.path.stem}.[0-9]*")):
            raise DataError(f"{run.path} has no groups yet: there is no {self.path}; 'apprentice train' writes it")
        self.setting = Setting(name=config.name, format=config.format.build(), catalog=config.tasks.catalog())
        self.damage: list[Damage] = []
        """Lines that could not be read, once the groups are drawn."""
        self._rank: Callable[[Group], RankedGroup] = config.rewards.rank
        self._ranked = self.path.parent.name == GROUPS.parent.name

    def groups(self) -> Iterator[RoundGroup]:
        """Every group, in the order of the log.

        Raises:
            DataError: the log is of another kind.
        """
        if self._ranked:
            ranked: Log[RoundGroup] = Log(self.path, RoundGroup)
            yield from ranked.read()
            self.damage = damaged([ranked])
            return
        played: Log[Group] = Log(self.path, Group)
        for group in played.read():
            version = max((episode.version for episode in group.episodes), default=0)
            yield RoundGroup(0, version, self._rank(group))
        self.damage = damaged([played])


def _run_of(path: Path) -> Run:
    """The run that a path leads to, or into."""
    for folder in (path, *path.parents):
        if Run(folder).resolved.is_file():
            return Run(folder)
    return Run.open(path)
