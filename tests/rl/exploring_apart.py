"""Explores in a process of its own that a test can kill: ``python exploring_apart.py FOLDER SYNC``."""

import asyncio
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from executors.catalog import Catalog
from executors.journal import Journal
from executors.tool import Tool, as_tool
from executors.types import ToolCall, ToolSpec
from rl.exploration import Exploration
from rl.explore import Explorer
from rl.trials.worker import IMAGINED, Actor, TrialConfig
from rollouts.formats.react import ReactFormat
from rollouts.imagine import SchemaImaginer
from rollouts.memory import Trial
from rollouts.policy import ScriptedPolicy, Source
from rollouts.store import Log
from rollouts.types import Task

NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
FORMAT = ReactFormat(describe_tools=False)


def explore(folder: Path, sync: str) -> list[Trial]:
    """Explore two tools that write down each call that is really made, before it is."""

    def tool(name: str) -> Tool:
        async def slow(**arguments: Any) -> int:
            with (folder / "made.jsonl").open("a") as file:
                file.write(json.dumps([name, arguments["number"]]) + "\n")
            await asyncio.sleep(0.01)
            return 2 * arguments["number"]

        return Tool(ToolSpec(name, "Double a number.", NUMBER), slow)

    def wrong(task: Task) -> list[str]:
        assert task.gold is not None
        return [FORMAT.write_call(ToolCall(task.gold.tool, {"number": 1000 + task.gold.arguments["number"]}), ())]

    def right(task: Task) -> list[str]:
        assert task.gold is not None
        return [FORMAT.write_call(task.gold, ())]

    actors = [
        Actor(source=Source(name=name, policy=name), build=partial(ScriptedPolicy, name, script))
        for name, script in (("live", wrong), (IMAGINED, right))
    ]
    setting = Exploration(episodes=4, trials=3, max_turns=1, focus=0, ltm_sync=2 if sync == "waves" else "strict")
    with Log(folder / "trials.jsonl", Trial) as log:
        config = TrialConfig(
            setting=setting,
            catalog=Catalog([tool("double"), tool("twice")]),
            format=FORMAT,
            imaginer=SchemaImaginer(),
            actors=actors,
            seed=1,
            journal=Journal(folder / "calls"),
        )
        return asyncio.run(Explorer(config, log).explore())


def deadly_tools(folder: str) -> list[Tool]:
    """Two tools that write down each call that is really made; the process that makes the ninth dies of it, once."""

    def doubled(number: int) -> int:
        """Double a number.

        Args:
            number: such as 12.
        """
        made, died = Path(folder) / "made.jsonl", Path(folder) / "died"
        with made.open("a") as file:
            file.write(f"{number}\n")
        if len(made.read_text().splitlines()) == 9 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number

    return [as_tool(doubled, name=name) for name in ("double", "twice")]


if __name__ == "__main__":
    explore(Path(sys.argv[1]), sys.argv[2])
