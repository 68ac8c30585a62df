"""The cluster of a run that is on Ray for some of its stages only: joined, or started, when the first of them comes."""

import contextlib

from rl.progress import Progress
from rl.recipes.parts import Cluster
from rl.remote import require_gpus, require_storage
from rl.remote import start as start_ray
from rl.run import Run


class Joined:
    """Used in a ``with`` statement, which ends the cluster that it may have started."""

    def __init__(self, settings: Cluster, run: Run, progress: Progress) -> None:
        """
        Args:
            settings: of the cluster that is started, where none is connected to.
            run: whose folder every node has to have.
            progress: what the user sees.
        """
        self._settings = settings
        self._run = run
        self._progress = progress
        self._open = contextlib.ExitStack()
        self._there = False

    def __enter__(self) -> "Joined":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def join(self, *, gpus: float = 0) -> None:
        """Be on the cluster, for something that takes so many GPUs.

        Raises:
            ConfigError: it has fewer of them, or a node lacks the run's folder.
            ClusterError: Ray could not be started.
        """
        if not self._there:
            cluster = start_ray(
                num_cpus=self._settings.num_cpus,
                object_store_mib=self._settings.object_store_mib,
                dashboard=self._settings.dashboard,
                logs=self._run.folder("logs").resolve(),
            )
            self._open.callback(cluster.stop)
            self._there = True
            require_storage(str(self._run.path.resolve()))
            if cluster.dashboard:
                self._progress.line(f"Ray dashboard  {cluster.dashboard}")
        require_gpus(gpus)
