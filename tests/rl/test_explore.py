"""Exploring: memory across episodes and runs, waves, budgets, what each ablation takes away, and being killed."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from executors.catalog import Catalog
from executors.errors import ToolError, TransientError
from executors.tool import as_tool, tool
from executors.types import Observation, ToolCall, ToolSpec
from rewards.judge import by_model, by_rule, read_verdict
from rl.exploration import Ablations, Exploration
from rl.explore import Explorer, judged_trials, shared_out
from rl.trials.worker import IMAGINED, Actor, TrialConfig
from rollouts.formats.react import ReactFormat
from rollouts.imagine import Imagined, SchemaImaginer
from rollouts.memory import Memory, Trial
from rollouts.policy import ScriptedPolicy, Source
from rollouts.store import Log, LogFullError
from rollouts.types import Completion, Episode, Sampling, Task, Turn

FORMAT = ReactFormat(describe_tools=False)
CALLED: list[str] = []


@tool(instant=True)
def pay(amount: int, coin: str) -> str:
    """Pay an amount of money.

    Args:
        amount: how much, such as 100.
        coin: the currency, such as EUROS or PESOS.
    """
    CALLED.append(coin)
    if coin not in ("PESOS", "EUROS"):
        raise ToolError(f"coin {coin!r} is not known; it is one of PESOS, EUROS")
    return f"paid {amount} {coin}"


@tool(instant=True)
def double(number: int) -> int:
    """Double a number."""
    CALLED.append("double")
    return 2 * number


CATALOG = Catalog([pay, double])


def gold(task: Task) -> Sequence[str]:
    assert task.gold is not None
    return [FORMAT.write_call(task.gold, ())]


def wrong(task: Task) -> Sequence[str]:
    return [FORMAT.write_call(ToolCall("double", {"number": "x"}), ())]


def actor(name: str, script: Any, temperature: float = 0.0) -> Actor:
    return Actor(
        source=Source(name=name, policy=name, sampling=Sampling(temperature=temperature)),
        build=lambda: ScriptedPolicy(name, script),
    )


def config(setting: Exploration, catalog: Catalog, actors: Sequence[Actor], imaginer: Any) -> TrialConfig:
    return TrialConfig(setting=setting, catalog=catalog, format=FORMAT, imaginer=imaginer, actors=actors, seed=1)


def explorer(folder: Path, *, actors: Sequence[Actor] = (), imaginer: Any = None, **setting: Any) -> Explorer:
    log: Log[Trial] = Log(folder / "trials.jsonl", Trial)
    options = {"episodes": 3, "trials": 2, "max_turns": 1, "focus": 0, **setting}
    chosen = actors or [actor(IMAGINED, gold)]
    return Explorer(config(Exploration(**options), CATALOG, chosen, imaginer or SchemaImaginer()), log)


def run(one: Explorer) -> list[Trial]:
    try:
        return asyncio.run(one.explore())
    finally:
        one._log.close()


def told(trials: Sequence[Trial]) -> list[tuple[str, str, bool | None]]:
    return [(trial.id, trial.task.prompt, trial.solved) for trial in trials]


def test_every_trial_is_on_disk_and_is_not_made_again(tmp_path):
    first = run(explorer(tmp_path))
    assert [trial.id for trial in first] == [
        f"{name}/{e}/{t}" for name in CATALOG.names for e in range(3) for t in range(2)
    ]
    assert all(trial.attempts[0].calls for trial in first)
    CALLED.clear()
    again = explorer(tmp_path)
    assert told(run(again)) == told(first)
    assert not CALLED and again.spent.trials == 12
    more = run(explorer(tmp_path, episodes=5))  # what was learned in one run is known in the next
    assert told(more)[:6] == told(first)[:6] and len(more) == 20
    assert len({trial.task.prompt for trial in more}) == 20


def test_a_disk_that_refuses_a_trial_ends_it_soon(tmp_path):
    class Full(Log[Trial]):
        def append(self, records: Any) -> None:
            raise LogFullError("the disk is full")

    one = explorer(tmp_path, episodes=200, trials=1, tools_at_once=1)
    one._log = Full(tmp_path / "trials.jsonl", Trial)
    CALLED.clear()
    with pytest.raises(LogFullError, match="the disk is full"):
        run(one)
    assert len(CALLED) < 200  # not after all that was to be explored


@pytest.mark.parametrize("sync", ["strict", 3])
def test_killed_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path, sync):
    whole = told(run(explorer(tmp_path / "whole", ltm_sync=sync)))
    lines = (tmp_path / "whole" / "trials.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (0, 1, 5, 11):
        folder = tmp_path / f"cut-{kept}"
        folder.mkdir()
        (folder / "trials.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:40])
        assert told(run(explorer(folder, ltm_sync=sync))) == whole


def test_waves_share_what_came_before_them(tmp_path):
    seen: dict[str, int] = {}

    class Watching(SchemaImaginer):
        async def imagine(self, spec: Any, memory: Any, recent: Any, seed: int) -> Any:
            seen[f"{spec.name}/{len(seen)}"] = len(memory) - len(recent)
            return await super().imagine(spec, memory, recent, seed)

    def known(folder: str, **setting: Any) -> list[int]:
        seen.clear()
        run(explorer(tmp_path / folder, imaginer=Watching(), episodes=4, trials=1, tools_at_once=1, **setting))
        return [count for name, count in seen.items() if name.startswith("pay")]

    assert known("strict") == [0, 1, 2, 3]
    assert known("waves", ltm_sync=2) == [0, 0, 2, 2]
    assert known("none", without={"long_term": False}) == [0, 0, 0, 0]


def test_budgets_end_it_and_a_larger_one_goes_on(tmp_path):
    first = run(explorer(tmp_path, max_calls=4, tools_at_once=1))
    assert sum(trial.calls for trial in first) == 4
    assert len(run(explorer(tmp_path, max_calls=100))) == 12


def test_a_failed_attempt_is_kept_beside_the_one_that_solved_it(tmp_path):
    trials = run(explorer(tmp_path, actors=[actor("live", wrong), actor(IMAGINED, gold)]))
    pays = [trial for trial in trials if trial.tool == "pay" and trial.solved]
    assert pays and all([attempt.source for attempt in trial.attempts] == ["live", IMAGINED] for trial in pays)
    kept, rejected = judged_trials(trials)
    assert {attempt.source for _, attempt in kept} == {IMAGINED}
    assert {attempt.source for _, attempt in rejected} >= {"live"}
    assert len(kept) + len(rejected) == sum(len(trial.attempts) for trial in trials)


def test_without_reflection_nobody_says_what_was_solved(tmp_path):
    trials = run(explorer(tmp_path, actors=[actor("a", gold), actor("b", gold)], without={"reflection": False}))
    assert {trial.solved for trial in trials} == {None} and {len(trial.attempts) for trial in trials} == {2}


def test_without_execution_nothing_is_run(tmp_path):
    CALLED.clear()
    trials = run(explorer(tmp_path, without={"execution": False}))
    assert not CALLED and {trial.solved for trial in trials} == {None}
    assert {seen.content for trial in trials for one in trial.attempts for seen in one.observations} == {
        "the call was taken down and not run"
    }


def test_with_short_term_memory_a_failed_call_is_not_made_twice(tmp_path):
    for remembers in (True, False):
        replies = iter(range(1000))

        def twice_the_same(task: Task, replies: Iterator[int] = replies) -> Sequence[str]:
            return [FORMAT.write_call(ToolCall("double", {"number": next(replies) // 2}), ())]

        actors = [actor("a", twice_the_same, 1.0), actor("b", twice_the_same, 1.0)]
        setting = {"tools_at_once": 1, "without": {"short_term": remembers}}
        trials = run(explorer(tmp_path / str(remembers), actors=actors, **setting))
        failed = [trial for trial in trials if len(trial.attempts) == 2]
        repeated = sum(trial.attempts[0].calls == trial.attempts[1].calls for trial in failed)
        assert (repeated == 0) == remembers and failed


def test_exploring_goes_where_the_policy_fails(tmp_path):
    def only_doubles(task: Task) -> Sequence[str]:
        return gold(task) if task.gold is not None and task.gold.tool == "double" else wrong(task)

    actors = [actor("live", only_doubles), actor(IMAGINED, gold)]
    one = explorer(tmp_path, actors=actors, episodes=4, focus=0.5)
    run(one)
    assert len(one.memory("pay")) > len(one.memory("double"))
    assert one.coverage()["double"].given["number"] == len(one.memory("double"))
    assert shared_out(7, {"a": 1.0, "b": 0.5, "c": 0.0}) == {"a": 5, "b": 2, "c": 0}
    assert shared_out(3, {"a": 0.0, "b": 0.0}) == {"a": 2, "b": 1}


def test_sittings_that_were_cut_are_held_before_any_goes_where_the_policy_fails(tmp_path):
    def only_doubles(task: Task) -> Sequence[str]:
        return gold(task) if task.gold is not None and task.gold.tool == "double" else wrong(task)

    class Away(SchemaImaginer):
        async def imagine(self, spec: ToolSpec, memory: Memory, recent: Sequence[Trial], seed: int) -> Imagined | None:
            if spec.name == "pay":
                raise TransientError("it cannot be reached")
            return await super().imagine(spec, memory, recent, seed)

    actors, setting = [actor("live", only_doubles)], {"episodes": 4, "focus": 0.5}
    unbroken = run(explorer(tmp_path / "unbroken", actors=actors, **setting))
    cut = explorer(tmp_path / "cut", actors=actors, imaginer=Away(), **setting)
    assert {trial.tool for trial in run(cut)} == {"double"} and cut.unreached
    assert told(run(explorer(tmp_path / "cut", actors=actors, **setting))) == told(unbroken)


def test_tools_and_the_episodes_of_a_wave_are_explored_side_by_side(tmp_path):
    under_way, most = 0, 0

    async def slow(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return number

    def peak(folder: str, **setting: Any) -> int:
        nonlocal most
        most = 0
        catalog = Catalog([as_tool(slow, name=name) for name in ("one", "two")])
        chosen = Exploration(episodes=3, trials=1, max_turns=1, focus=0, without=Ablations(reflection=False), **setting)
        with Log(tmp_path / folder / "trials.jsonl", Trial) as log:
            made = config(chosen, catalog, [actor(IMAGINED, gold)], SchemaImaginer())
            asyncio.run(Explorer(made, log).explore())
        return most

    assert peak("one by one", tools_at_once=1) == 1
    assert peak("tools") == 2
    assert peak("waves", ltm_sync=3) == 6


def attempt(call: ToolCall, seen: Observation, answer: str | None = None) -> Episode:
    turn = Turn(Completion(text="..."), (call,), (seen,))
    return Episode(task_id="t", source="s", policy="p", version=0, turns=(turn,), answer=answer, stop="answer")


def test_the_rule_asks_for_the_right_call_and_not_for_the_absence_of_an_error():
    meant = ToolCall("double", {"number": 4})
    task = Task(id="t", prompt="Double 4.", gold=meant)
    right = by_rule(task, attempt(meant, Observation("8"), "It is 8."))
    assert right is not None and right.passed
    ran = by_rule(task, attempt(ToolCall("double", {"number": 5}), Observation("10")))
    assert ran is not None and not ran.passed and ran.informative and not ran.appropriate
    assert "the query means" in ran.reasons[0]
    failed = by_rule(task, attempt(meant, Observation("broken", "tool_error")))
    assert failed is not None and not failed.passed and failed.appropriate
    invented = by_rule(task, attempt(meant, Observation("8"), "It is 9."))
    assert invented is not None and not invented.faithful
    other = ToolCall("double", {"number": "4"})
    assert by_rule(task, attempt(other, Observation("8")), Observation("8")).passed  # type: ignore[union-attr]
    assert by_rule(Task(id="t", prompt="?"), attempt(meant, Observation("8"))) is None


def test_a_model_gives_a_structured_verdict_and_is_asked_again_once():
    said = iter(["Well, yes.", 'Here: {"informative": true, "faithful": true, "appropriate": false, "reason": "No."}'])
    asked: list[Any] = []

    async def model(messages: Any, **options: Any) -> str:
        asked.append((messages, options))
        return next(said)

    task = Task(id="t", prompt="Double 4.")
    verdict = asyncio.run(
        by_model(model, double.spec, task, attempt(ToolCall("double", {"number": 4}), Observation("8")))
    )
    assert verdict is not None and not verdict.passed and verdict.reasons == ("No.",) and verdict.judge == "model"
    assert len(asked) == 2 and asked[0][1]["temperature"] == 0
    assert "Double 4." in asked[0][0][0]["content"]
    assert read_verdict('{"informative": true, "faithful": "yes", "appropriate": true}') is None
    assert read_verdict("[1]") is None
