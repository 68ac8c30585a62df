"""What it costs that tools run elsewhere, and that calls are written down: ``python -m benchmarks.executors_remote``.

- *remote*: milliseconds of one calculator call with an executor worker on Ray, one after another and 64 at once, with
  and without a state; beside the same call in this process.
- *recovery*: seconds from the kill of the only worker to the next answer, the episode's state made again.
- *journal*: CPU-microseconds that the journal adds to a calculator call, microseconds of a call that has to be on disk
  before and after, alone and 64 at once, and what reading a line again costs.

Medians with minimum and maximum.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from executors.catalog import Catalog
from executors.elsewhere import RemoteExecutor
from executors.environment import environment_tools
from executors.executor import Executor
from executors.journal import Journal
from executors.remote import ExecutorPool, ExecutorWorkers
from executors.tool import Limits, as_tool, tool
from executors.tools.calculator import calculator
from executors.types import Scene, ToolCall
from rl import remote

CALL = ToolCall("calculator", {"expression": "(12.5*37)/4+2"})
STEP = ToolCall("step", {"by": 1})


class Walk:
    """An environment."""

    def reset(self) -> None:
        self.place = 0

    def step(self, by: int) -> str:
        """Go on.

        Args:
            by: how far.
        """
        self.place += by
        return str(self.place)


@tool
def process(word: str) -> str:
    """Say which process this is."""
    return str(os.getpid())


def catalog() -> Catalog:
    return Catalog([calculator, process, *environment_tools(Walk)])


@dataclass(frozen=True)
class Build:
    """Builds an executor in the worker's process."""

    def __call__(self) -> Executor:
        return Executor(catalog())


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


async def one_by_one(executor: Executor, call: ToolCall, count: int) -> float:
    """Milliseconds of a call."""
    async with executor.open(Scene(f"{call.tool}-{count}-{time.perf_counter()}")) as session:
        await session.arun(call)
        began = time.perf_counter()
        for _ in range(count):
            assert (await session.arun(call)).ok
        return 1000 * (time.perf_counter() - began) / count


async def at_once(executor: Executor, call: ToolCall, rounds: int, width: int = 64) -> float:
    """Milliseconds of a call where as many are always under way, each in an episode of its own."""

    async def episode(number: int) -> None:
        async with executor.open(Scene(f"{call.tool}-{number}-{time.perf_counter()}")) as session:
            for _ in range(rounds):
                assert (await session.arun(call)).ok

    began = time.perf_counter()
    await asyncio.gather(*(episode(number) for number in range(width)))
    return 1000 * (time.perf_counter() - began) / (rounds * width)


def remote_calls(repetitions: int = 7, calls: int = 200) -> dict[str, dict[str, float]]:
    """Milliseconds of a call elsewhere, and here."""
    pool = ExecutorPool({"far": ExecutorWorkers(build=Build(), tools=tuple(catalog().names))})
    executors = {
        "elsewhere": RemoteExecutor(catalog(), pool.crews, calls_per_episode=None),
        "here": Executor(catalog(), calls_per_episode=None),
    }
    figures = {}
    for where, executor in executors.items():
        for name, call in (("stateless", CALL), ("stateful", STEP)):
            alone = [asyncio.run(one_by_one(executor, call, calls)) for _ in range(repetitions)]
            together = [asyncio.run(at_once(executor, call, calls // 16)) for _ in range(repetitions)]
            figures[f"{where}/{name}/ms"] = spread(alone)
            figures[f"{where}/{name}/ms_64_at_once"] = spread(together)
    pool.stop()
    return figures


def recovery(kills: int = 5) -> dict[str, dict[str, float]]:
    """Seconds from a kill to the next answer."""
    pool = ExecutorPool({"far": ExecutorWorkers(build=Build(), tools=tuple(catalog().names))})
    executor = RemoteExecutor(catalog(), pool.crews, calls_per_episode=None)

    async def episode() -> float:
        async with executor.open(Scene("k")) as session:
            await session.arun(STEP)
            victim = await session.arun(ToolCall("process", {"word": "x"}))
            began = time.perf_counter()
            os.kill(int(victim.content), signal.SIGKILL)
            assert (await session.arun(STEP)).content == "2"
            return time.perf_counter() - began

    seconds = [asyncio.run(episode()) for _ in range(kills)]
    pool.stop()
    return {"recovery/s": spread(seconds)}


def journal(repetitions: int = 7, calls: int = 5000) -> dict[str, dict[str, float]]:
    """Microseconds that the journal takes."""
    figures: dict[str, dict[str, float]] = {}
    plain = Executor(Catalog([calculator]), calls_per_episode=None)
    with tempfile.TemporaryDirectory() as folder:
        written = Executor(Catalog([calculator]), calls_per_episode=None, cassette=Journal(folder))
        written.recall("r")
        without = [cpu_microseconds(plain, calls) for _ in range(repetitions)]
        with_it = [cpu_microseconds(written, calls) for _ in range(repetitions)]
        figures["call/cpu_us"], figures["journalled_call/cpu_us"] = spread(without), spread(with_it)
        lines = sum(path.read_bytes().count(b"\n") for path in Path(folder).iterdir())
        again = Journal(folder)
        figures["read_a_line/us"] = spread([took(lambda: again.recall("r", again=True)) / lines for _ in range(3)])
        durable = as_tool(calculator.function, name="calculator", instant=True, limits=Limits(idempotent=False))
        sure = Executor(Catalog([durable]), calls_per_episode=None, cassette=Journal(folder))
        sure.recall("s")
        alone = [1000 * asyncio.run(one_by_one(sure, CALL, 50)) for _ in range(repetitions)]
        together = [1000 * asyncio.run(at_once(sure, CALL, 4)) for _ in range(repetitions)]
        figures["call_on_disk/us"], figures["call_on_disk/us_64_at_once"] = spread(alone), spread(together)
    return figures


def cpu_microseconds(executor: Executor, calls: int) -> float:
    """Of a call."""
    with executor.open(Scene("r/t/own/0")) as session:
        began = time.process_time()
        for _ in range(calls):
            session.run(CALL)
        return 1e6 * (time.process_time() - began) / calls


def took(work: Callable[[], object]) -> float:
    """Microseconds."""
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began)


def main() -> None:
    """Measure what is asked for, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["remote", "recovery", "journal", []], default=[])
    parser.add_argument("--json", action="store_true", help="print JSON alone, as it always does")
    wanted = parser.parse_args().what or ["journal", "remote", "recovery"]
    figures: dict[str, dict[str, float]] = {}
    if "journal" in wanted:
        figures |= journal()
    if {"remote", "recovery"} & set(wanted):
        cluster = remote.start_local(num_cpus=4, object_store_mib=100)
        figures |= remote_calls() if "remote" in wanted else {}
        figures |= recovery() if "recovery" in wanted else {}
        cluster.stop()
    print(json.dumps({name: {key: round(value, 3) for key, value in each.items()} for name, each in figures.items()}))


if __name__ == "__main__":
    main()
