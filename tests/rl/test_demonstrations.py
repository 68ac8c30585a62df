"""Stage 1's data: the policy's own right answers, a teacher's calls, nothing asked twice; and few-shot prompts."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response

from executors.errors import ConfigError
from executors.executor import Executor
from executors.types import ToolCall
from rewards.types import RankedGroup
from rl.config import validate
from rl.data.tasks.benchmark import Benchmark
from rl.progress import Progress
from rl.recipes.cloning import Annotators
from rl.recipes.demonstrations import Demonstrations
from rl.recipes.trice import TriceConfig
from rl.run import Run
from rollouts.formats import Format
from rollouts.formats.chat import ChatFormat
from rollouts.formats.few_shot import FewShotFormat
from rollouts.formats.inline import InlineFormat
from rollouts.policy import Source
from rollouts.remote import Workers
from rollouts.store import Log
from rollouts.types import Group, Task
from rollouts.worker import RolloutWorker, WorkerConfig
from tests.executors.endpoints import endpoint
from tests.rl.overfitted import ANSWERS, CATALOG, COUNT, FORMAT, GREETING, PRODUCT, SUM, write_checkpoint
from tests.rollouts.chat_templates import ChatMl

UNKNOWN = "Multiply 86 and 7."
CALLS = {SUM: "2+3", PRODUCT: "17*3", UNKNOWN: "86*7"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"))


def task(question: str) -> Task:
    call = CALLS.get(question)
    return Task(
        id=question,
        prompt=question,
        answer=ANSWERS.get(question, "602"),
        tools=("calculator",),
        gold=None if call is None else ToolCall("calculator", {"expression": call}),
        labels={"dataset": "sums" if call else "words"},
    )


TASKS = tuple(task(question) for question in (SUM, GREETING, PRODUCT, COUNT, UNKNOWN))


BENCHMARK = Benchmark(catalog=CATALOG, demonstrations=TASKS, train=TASKS, validation=TASKS, test=TASKS)


def worker(policies: Mapping[str, Any], format: Format) -> WorkerConfig:
    return WorkerConfig(policies=policies, executor=partial(Executor, CATALOG), format=format)


def config(demonstrator: dict[str, Any], **changes: Any) -> TriceConfig:
    content = {
        "recipe": "trice",
        "name": "x",
        "cloning": {"steps": 10, "demonstrator": demonstrator},
        "sources": [{"name": "gold", "policy": "gold"}],
        "rewards": {"kind": "weighted", "match": "exact"},
        "improvement": {"rounds": 1, "tasks_per_round": 4, "batch_size": 4},
    }
    return validate(content | changes, TriceConfig, "x.yaml")


class LocalPool:
    """Plays in this process, and stops for good after some tasks where it is told to."""

    played: list[tuple[str, str]] = []
    most = 1000

    def __init__(self, workers: Workers, timeout: float) -> None:
        self._worker = RolloutWorker(workers.config)

    def pieces(self, tasks: Sequence[Task], sources: Sequence[Source], round: str) -> Iterator[list[Group]]:
        for one in tasks:
            if len(self.played) == self.most:
                raise KeyboardInterrupt
            self.played.append((sources[0].name, one.id))
            yield asyncio.run(self._worker.play([one], sources, round))

    def stop(self) -> None:
        pass


@pytest.fixture
def pool(monkeypatch) -> type[LocalPool]:
    monkeypatch.setattr(LocalPool, "played", [])
    return LocalPool


def demonstrations(mine: TriceConfig, pool: Any = LocalPool, tasks: tuple[Task, ...] = TASKS) -> Demonstrations:
    return Demonstrations(mine, replace(BENCHMARK, demonstrations=tasks), FORMAT, worker, pool)


def called(made: list[RankedGroup]) -> dict[str, bool]:
    return {group.task.id: group.candidates[0].episode.called for group in made}


def test_right_answers_are_kept_and_wrong_ones_get_an_executed_gold_call(base, pool, tmp_path):
    run = Run(tmp_path)
    repeated = (*TASKS, *TASKS)  # a stream of questions may hold one many times; it is asked once
    made = demonstrations(config({"kind": "own_answers"}), tasks=repeated).own(base, run, Progress())
    assert called(made) == {GREETING: False, COUNT: False, SUM: True, PRODUCT: True, UNKNOWN: True}
    assert [group.candidates[0].episode.policy for group in made if group.task.id == COUNT] == ["live"]
    taught = next(group.candidates[0].episode for group in made if group.task.id == UNKNOWN)
    assert (taught.observations[0].content, taught.answer) == ("602", "602")
    asked = [name for source, name in pool.played if source == "own"]
    assert sorted(asked) == sorted(ANSWERS.keys() | {UNKNOWN})
    finished = run.finished("demonstrations")
    assert finished is not None
    assert finished["origins"] == {
        "sums": {"own": 0, "taught": 3, "left_out": 0},
        "words": {"own": 2, "taught": 0, "left_out": 0},
    }


def test_what_was_asked_before_a_crash_is_not_asked_again(base, pool, tmp_path, monkeypatch):
    run = Run(tmp_path)
    made = demonstrations(config({"kind": "own_answers"}))
    monkeypatch.setattr(pool, "most", 3)
    with pytest.raises(KeyboardInterrupt):
        made.own(base, run, Progress())
    monkeypatch.setattr(pool, "most", 7)
    with pytest.raises(KeyboardInterrupt):
        made.own(base, run, Progress())
    monkeypatch.setattr(pool, "most", 1000)
    whole = made.own(base, run, Progress())
    assert len(pool.played) == len(set(pool.played)) == 5 + 3
    assert len(whole) == 5
    again = made.own(base, run, Progress())
    assert len(pool.played) == 8
    assert again == whole


def test_a_teacher_behind_an_endpoint_reads_shots_is_tried_again_and_its_wrong_calls_are_left_out(base, pool, tmp_path):
    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        if asked.endswith("Answer: ") or "->" in asked.rpartition(".\n")[2]:
            return "Answer: " + asked.rpartition("->")[2].strip()
        return "17*3" if PRODUCT in asked.rpartition("\n\n")[2] else "1+1"

    policies = {
        "teacher": {"kind": "endpoint", "model": "m", "mode": "text", "retries": 3, "backoff": 0.001},
    }
    told = {"kind": "own_answers", "teacher": "teacher", "shots": 2, "attempts": 2, "temperature": 0.5}
    with endpoint(Response(status_code=503), Response(status_code=429), answer) as fake:
        policies["teacher"]["base_url"] = fake.url
        made = demonstrations(config(told, policies=policies)).own(base, Run(tmp_path), Progress())
    assert called(made) == {GREETING: False, COUNT: False, PRODUCT: True}
    prompt = fake.asked[-1]["messages"][-1]["content"]
    assert f"{SUM}\ncalculator(2+3)->5\nAnswer: 5\n\n" in prompt
    assert len(list(Log(tmp_path / "demonstrations" / "taught.jsonl", Group).read())) == 3


def test_shots_are_refused_where_a_teacher_would_not_read_them(base, pool, tmp_path):
    policies = {"teacher": {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:9/v1"}}
    mine = config({"kind": "own_answers", "teacher": "teacher", "shots": 2}, policies=policies)
    with pytest.raises(ConfigError, match="set mode: text"):
        demonstrations(mine).own(base, Run(tmp_path), Progress())
    with pytest.raises(ConfigError, match="there is no policy 'techer'; there are gold, live"):
        config({"kind": "own_answers", "teacher": "techer"})


def test_annotators_call_as_often_as_they_are_told():
    made = demonstrations(config({"call_rate": {}}))
    always = called(made.annotated(0, Annotators()))
    assert [name for name, calls in always.items() if calls] == [SUM, PRODUCT, UNKNOWN]
    never = called(made.annotated(0, Annotators(call_rate={"": 0.0})))
    assert not any(never.values())


def test_few_shot_examples_are_of_the_questions_own_data_set():
    format = demonstrations(config({}, few_shot=2, stages=[])).policy_format()
    specs = CATALOG.specs()
    read = format.opening(task(UNKNOWN), specs)
    assert read.endswith(f"\n\n{UNKNOWN}\n")
    assert read.count("Answer: ") == 2
    assert GREETING not in read
    assert GREETING in format.opening(Task(id="t", prompt="?", labels={"dataset": "words"}), specs)
    assert format.opening(Task(id="t", prompt="?", labels={"dataset": "none"}), specs) == "?\n"
    assert format.parse("calculator(1)->", specs) == FORMAT.parse("calculator(1)->", specs)


def test_a_source_of_stage_2_reads_shots_where_its_policy_reads_text():
    teacher = {"kind": "endpoint", "model": "m", "mode": "text", "base_url": "http://127.0.0.1:9/v1"}
    shown = {"name": "shown", "policy": "teacher", "shots": 2}
    plain = {"name": "plain", "policy": "teacher"}
    with endpoint("Answer: 9") as fake:
        policies = {"teacher": {**teacher, "base_url": fake.url}}
        made = config({}, policies=policies, sources=[shown, plain])
        formats = demonstrations(made).source_formats()
        assert formats.keys() == {"shown"}
        build = made.policies["teacher"].build("teacher", FORMAT, CATALOG)
        playing = RolloutWorker(replace(worker({"teacher": build}, FORMAT), formats=formats))
        asyncio.run(playing.play([task(UNKNOWN)], [source.build() for source in made.sources], "improve/0"))
    first, second = sorted((one["messages"][-1]["content"] for one in fake.asked), key=len)
    assert second.endswith(f"\n\n{first}") and f"{SUM}\ncalculator(2+3)->5\nAnswer: 5\n" in second
    assert SUM not in formats["shown"].opening(task(SUM), CATALOG.specs()).removesuffix(f"{SUM}\n")  # not its own

    with pytest.raises(ConfigError, match="'shown' has shots, which only one of policies reads"):
        config({}, sources=[{**shown, "policy": "live"}])
    with pytest.raises(ConfigError, match=r"policies\.teacher: shots are text"):
        config({}, policies={"teacher": {**teacher, "mode": "tools"}}, sources=[shown])


def test_few_shot_goes_with_no_training_and_stages_in_their_order():
    with pytest.raises(ConfigError, match=r"set stages: \[\]"):
        config({}, few_shot=2)
    with pytest.raises(ConfigError, match="clone comes before improve"):
        config({}, stages=["improve", "clone"])
    chat: Any = ChatMl()
    chatting = Demonstrations(config({}), BENCHMARK, ChatFormat(chat), worker)
    with pytest.raises(ConfigError, match="the chat format has turns"):
        chatting.with_shots(1, None)


def test_a_format_behind_shots_does_everything_else_as_before():
    inner = InlineFormat("Be brief.")
    wrapped = FewShotFormat(inner, {"": ("1?\nAnswer: 1",)})
    specs = CATALOG.specs()
    assert wrapped.opening(TASKS[0], specs) == f"Be brief.\n1?\nAnswer: 1\n\n{SUM}\n"
    call = ToolCall("calculator", {"expression": "1"})
    assert wrapped.write_call(call, specs) == inner.write_call(call, specs)
    assert wrapped.write_calls([call], specs) == inner.write_calls([call], specs)
    assert wrapped.forced("direct", specs) == inner.forced("direct", specs)
    assert wrapped.answer_so_far("Answer: 1", specs) == inner.answer_so_far("Answer: 1", specs)
    assert (wrapped.name, wrapped.stop, wrapped.markers(specs)) == (inner.name, inner.stop, inner.markers(specs))
    assert json.loads(json.dumps(wrapped.shots)) == {"": ["1?\nAnswer: 1"]}
