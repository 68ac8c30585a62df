"""The learner in the process of whoever drives it: what ``RemoteLearner`` is, without Ray."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rl.learner.rank import RankConfig, RankLoop
from rl.learner.remote import Start
from rl.learner.work import Work
from rollouts.types import Snapshot


class LocalLearner:
    """Takes each step as it is put, and keeps the weights that it publishes; see ``RemoteLearner``."""

    def __init__(self, config: RankConfig, start: Start, versions: int = 4) -> None:
        """
        Args:
            config: of the one rank.
            start: where it begins.
            versions: of the weights that are kept.
        """
        self._loop = RankLoop(Path(start.checkpoint), config)
        self._start = start
        self._versions = versions
        self._snapshots: dict[int, Snapshot] = {}
        self._reports: dict[int, Mapping[str, float]] = {}
        if start.version is not None:
            self._publish(start.version)

    def put(self, works: Sequence[Work]) -> None:
        """Take steps, in order.

        Raises:
            DivergedError: several in a row were not finite.
        """
        for work in works:
            self._reports[work.step] = self._loop.learn(work)
            if work.publish is not None:
                self._publish(work.publish)
            if work.save and (path := self._loop.save(work.step + 1)) is not None:
                self._start = Start(str(path), work.step + 1, work.publish)

    def snapshot(self, version: int) -> Snapshot:
        """The weights of a version; the oldest kept where it is gone."""
        return self._snapshots[min(known for known in self._snapshots if known >= version)]

    def wait_saved(self, step: int) -> Start:
        """The newest checkpoint.

        Raises:
            RuntimeError: it is older than that step, and no step is under way.
        """
        if self._start.step < step:
            raise RuntimeError(f"no checkpoint of step {step} or later was asked for; the newest is {self._start.step}")
        return self._start

    def reports(self, step: int) -> dict[int, Mapping[str, float]]:
        """What is known of the steps below this one and has not been fetched yet."""
        return {known: self._reports.pop(known) for known in sorted(self._reports) if known < step}

    def close(self) -> None:
        """Nothing is left open."""

    def _publish(self, version: int) -> None:
        self._snapshots[version] = Snapshot(version, self._loop.learner.weights())
        for old in sorted(self._snapshots)[: -self._versions]:
            del self._snapshots[old]
