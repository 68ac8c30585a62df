"""Exploring with slow tools: trials a second by how many episodes run at once.

    python -m benchmarks.exploration --seconds 0.1
    python -m benchmarks.exploration --workers 2       # trials made by workers on Ray

Each tool sleeps and answers; queries are imagined from its schema, and the meant call is made. Ideal is as many times
one episode's rate as episodes run at once. Repetitions alternate, and the best of each row counts.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from executors.catalog import Catalog
from executors.tool import as_tool
from rl.exploration import Ablations as Without
from rl.exploration import Exploration
from rl.explore import Explorer
from rl.remote import start_local
from rl.serving.policies import GoldPolicy
from rl.serving.sources import Placement
from rl.trials.remote import TrialPool
from rl.trials.worker import IMAGINED, Actor, TrialConfig
from rollouts.formats.react import ReactFormat
from rollouts.imagine import SchemaImaginer
from rollouts.memory import Trial
from rollouts.policy import Source
from rollouts.store import Log

_FORMAT = ReactFormat(describe_tools=False)


def measure(at_once: int, trials: int, seconds: float, *, waves: bool = False, workers: int = 0) -> tuple[float, float]:
    """Trials a second, and this process's CPU-seconds a trial, with so many episodes at once: of as many tools, or of
    one in waves; made in this process, or by workers on Ray.
    """

    async def slow(number: int) -> int:
        await asyncio.sleep(seconds)
        return number

    catalog = Catalog([as_tool(slow, name=f"slow{number}") for number in range(16)])
    setting = Exploration(
        episodes=max(1, trials // 4) * (at_once if waves else 1),
        trials=4,
        max_turns=1,
        focus=0,
        ltm_sync=at_once if waves else "strict",
        tools_at_once=at_once,
        without=Without(reflection=False),
    )
    actor = Actor(source=Source(name=IMAGINED, policy=IMAGINED), build=GoldPolicy(IMAGINED, catalog, _FORMAT))
    config = TrialConfig(setting=setting, catalog=catalog, format=_FORMAT, imaginer=SchemaImaginer(), actors=[actor])
    tools = catalog.names[: 1 if waves else at_once]
    with (
        tempfile.TemporaryDirectory() as folder,
        Log(Path(folder) / "trials.jsonl", Trial) as log,
        contextlib.ExitStack() as open_,
    ):
        pool = TrialPool(config, Placement(workers=workers)) if workers else None
        if pool is not None:
            open_.callback(pool.stop)
        explorer = Explorer(config, log, tools=tools, make=None if pool is None else pool.make)
        began, spent = time.perf_counter(), time.process_time()
        made = len(asyncio.run(explorer.explore()))
        return made / (time.perf_counter() - began), (time.process_time() - spent) / made


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each number of episodes at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.1, help="that a call takes")
    parser.add_argument("--trials", type=int, default=16, help="of each tool")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--waves", action="store_true", help="of episodes of one tool, instead of several tools")
    parser.add_argument("--workers", type=int, default=0, help="on Ray that make the trials; 0 makes them here")
    options = parser.parse_args(arguments)
    cluster = start_local(num_cpus=options.workers) if options.workers else None
    best: dict[int, tuple[float, float]] = {}
    for _ in range(options.repetitions):
        for at_once in (1, 2, 4, 8, 16):
            made = measure(at_once, options.trials, options.seconds, waves=options.waves, workers=options.workers)
            best[at_once] = max(best.get(at_once, (0.0, 0.0)), made)
    if cluster is not None:
        cluster.stop()
    print("at once   trials/s   of linear   CPU ms a trial")
    for at_once, (rate, cpu) in best.items():
        print(f"{at_once:7}   {rate:8.1f}   {rate / (at_once * best[1][0]):9.2f}   {1000 * cpu:14.1f}")


if __name__ == "__main__":
    main()
