"""Searches from a config: checked before anything starts, planned, and played."""

import asyncio
from pathlib import Path

import pytest

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.calculator import calculator
from rl.config import override, read_yaml, validate
from rl.planning.knobs import idle_knobs
from rl.planning.mistakes import mistakes
from rl.planning.plan import plan
from rl.recipes.searching import SearchConfig
from rl.recipes.trice import TriceConfig
from rollouts.formats.inline import InlineFormat
from rollouts.policy import ScriptedPolicy, Source
from rollouts.types import Completion, Task
from rollouts.worker import RolloutWorker, WorkerConfig

TINY = Path("configs/trice/tiny.yaml")
DFS = "rollouts.search={method: dfs, width: 3, queries: 20}"


def config(*changes: str) -> TriceConfig:
    return validate(override(read_yaml(TINY), changes), TriceConfig, "test")


def test_a_search_is_built_of_the_config_and_its_ways_are_as_long_as_attempts():
    searching = config(DFS, "rollouts.max_turns=4").rollouts.searching
    assert searching is not None
    assert (searching.name, searching.depth, searching.queries) == ("DFS_woFilter_w3", 4, 20)
    assert config().rollouts.searching is None and config("rollouts.max_turns=4").rollouts.replies == 4


def test_replies_of_an_attempt_are_bounded_by_the_tree_and_by_the_queries():
    assert SearchConfig(width=2).replies(3) == 2 + 4 + 8
    assert SearchConfig(width=2, queries=10).replies(3) == 10
    assert SearchConfig(width=10**6).replies(10**6) == 200
    assert SearchConfig(method="chain", width=3).replies(4) == 12


def test_a_plan_tells_of_the_search_and_counts_what_it_may_write():
    plain, searched = "\n".join(plan(config())), "\n".join(plan(config(DFS)))
    assert "search     DFS_woFilter_w3: ways of 3 calls, until 1 answers or 20 replies" in searched
    assert "search" not in plain
    written = [
        line.split("at most ")[1] for text in (plain, searched) for line in text.splitlines() if "written" in line
    ]
    assert written[0] != written[1]


def test_what_cannot_be_learned_from_or_does_nothing_is_said_beforehand():
    told = mistakes(config(DFS, "improvement.objective={kind: grpo}"))
    assert [line for line in told if line.startswith("rollouts.search: method dfs")]
    chain = config("rollouts.search={method: chain, back: 3}", "improvement.objective={kind: grpo}")
    assert [line for line in mistakes(chain) if "rollouts.search" in line] == [
        "rollouts.search.back: a chain begins anew; only method dfs goes back by so many replies"
    ]
    (alone,) = [line for line in idle_knobs(config("rollouts.search={width: 1}")) if "search" in line]
    assert alone.startswith("rollouts.search.width")


class Growing:
    """Says nothing at first, and then the answer."""

    name, version = "grows", 0

    def __init__(self):
        self.asked = 0

    async def complete(self, request):
        self.asked += 1
        return Completion(text=InlineFormat().write_answer("" if self.asked == 1 else "42"))

    def release(self, session):
        pass

    def load(self, weights, version):
        pass


@pytest.mark.parametrize(("search", "asked", "answer"), [(None, 1, ""), (SearchConfig(back=1), 2, "42")])
def test_a_worker_searches_with_policies_that_sample_and_plays_scripts_once(search, asked, answer):
    growing = Growing()
    scripted = ScriptedPolicy("gold", lambda task: [""])
    worker = RolloutWorker(
        WorkerConfig(
            policies={"grows": lambda: growing, "gold": lambda: scripted},
            executor=lambda: Executor(Catalog([calculator])),
            format=InlineFormat(),
            searching=None if search is None else search.build(3),
        )
    )
    sources = [Source(name="grows", policy="grows"), Source(name="gold", policy="gold")]
    (group,) = asyncio.run(worker.play([Task(id="t", prompt="6 times 7?")], sources, "round"))
    first, second = group.episodes
    assert (growing.asked, first.answer) == (asked, answer)
    assert len(second.turns) == 1 and not second.answer
