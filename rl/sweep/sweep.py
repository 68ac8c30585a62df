"""The order of a sweep: every arm's config is checked, the runs are made, the table is written as they end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from executors.errors import ApprenticeError
from rl import remote as cluster_of
from rl.sweep.grid import Grid, jobs, markdown, measure_of, missing, rows, write_table
from rl.sweep.remote import Outcome, run_jobs

_NEEDED = 2
"""CPUs that Ray hands out beyond those of the runs."""


class SweepFailedError(ApprenticeError):
    """Some runs of a grid did not end well; the others are in the table."""


def sweep(
    grid: Grid, folder: Path, load: Callable[[str, Sequence[str]], Any], say: Callable[[str], None], *, parallel: int
) -> Path | None:
    """Run a grid; what is done already is not done again, what was stopped goes on.

    Args:
        grid: arms and seeds.
        folder: where the runs and the table go.
        load: a recipe's validated config from its file and overrides.
        say: tells the user a line.
        parallel: runs at once.

    Returns:
        Where the table is; None where no run has ended.

    Raises:
        ConfigError: an arm's config cannot work; before anything is started.
        SweepFailedError: some runs did not end well.
    """
    configs = {name: load(grid.arms[name].base or grid.base, grid.arms[name].overrides) for name in grid.running}
    measure = measure_of({name: config.evaluation for name, config in configs.items()})
    every = jobs(grid, folder)
    waiting = [job for job in every if not job.done]
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{len(every)} runs in {folder}, {len(every) - len(waiting)} of them done; {parallel} at once")
    failed: list[Outcome] = []
    if waiting:
        most = max(config.ray.num_cpus for config in configs.values())
        cluster = cluster_of.start(
            num_cpus=parallel * most + _NEEDED,
            object_store_mib=parallel * max(config.ray.object_store_mib for config in configs.values()),
            logs=folder / "logs",
        )
        try:
            failed = run_jobs(
                waiting, cluster.address, lambda outcome: _tell(outcome, grid, folder, measure, say), parallel=parallel
            )
        finally:
            cluster.stop()
    made = rows(grid, folder, measure)
    for line in missing(grid, folder, measure):
        say(line)
    path = write_table(grid, folder, made) if made else None
    if made:
        say(markdown(grid, made))
    if failed:
        told = "\n".join(f"{outcome.job.folder.name} ended with {outcome.code}: {outcome.said}" for outcome in failed)
        raise SweepFailedError(
            f"{len(failed)} of {len(waiting)} runs failed; the same command tries them again.\n{told}"
        )
    return path


def _tell(outcome: Outcome, grid: Grid, folder: Path, measure: Any, say: Callable[[str], None]) -> None:
    """Say that a run ended, and write down the table as it is."""
    say(f"{outcome.job.folder.name} {'failed' if outcome.code else 'done'}")
    if made := rows(grid, folder, measure):
        write_table(grid, folder, made)
