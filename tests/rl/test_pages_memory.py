"""The page of what an exploration remembers."""

import pytest
from fastapi.testclient import TestClient

from executors.types import MalformedCall, Observation, ToolCall
from rl.pages.app import pages_app
from rl.pages.memories import memories
from rollouts.memory import Trial
from rollouts.store import Log
from rollouts.types import Completion, Episode, Task, Turn
from tests.rl.pages_run import make_run


def attempt(call, seen: Observation) -> Episode:
    turn = Turn(Completion(text="I try"), (call,), (seen,))
    return Episode(
        task_id="q", source="greedy", policy="live", version=0, turns=(turn,), answer=None, stop="turn_limit"
    )


def trial(tool: str, number: int, solved: bool | None, *attempts: Episode) -> Trial:
    task = Task(id=f"{tool}{number}", prompt=f"Pay <i>{number}</i>", gold=ToolCall(tool, {"coin": "PESOS"}))
    return Trial(tool=tool, episode=number // 2, number=number % 2, task=task, attempts=attempts, solved=solved)


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path / "explorer")
    refused = Observation("coin 'x' is not known; it is one of PESOS, EUROS", "tool_error")
    with Log(run.path / "explored.jsonl", Trial) as log:
        log.append(
            [
                trial("pay", 0, False, attempt(ToolCall("pay", {"coin": "x"}), refused)),
                trial("pay", 1, True, attempt(ToolCall("pay", {"coin": "PESOS"}), Observation("paid"))),
                trial("pay", 2, None, attempt(MalformedCall("pay(", "no end"), Observation("no end", "bad_call"))),
                trial("give", 0, True, attempt(ToolCall("give", {"to": "me"}), Observation("given"))),
            ]
        )
    return run


def test_the_memory_of_each_tool_is_added_up_from_its_trials(run):
    give, pay = memories(run.path)["explored"]
    assert (give.tool, give.solved, give.total) == ("give", 1, 1)
    assert (pay.total, pay.solved, pay.calls, pay.sittings) == (3, 1, 3, 2)
    assert pay.statuses == {"tool_error": 1, "ok": 1, "malformed": 1}
    assert pay.worked == {"coin": ["PESOS"]}
    assert pay.refusals == [("coin 'x' is not known; it is one of PESOS, EUROS", 1)]


def test_the_page_shows_every_trial_with_what_came_of_it(run):
    page = TestClient(pages_app(run.path.parent)).get("/run/memory?name=explorer").text
    assert "Pay &lt;i&gt;1&lt;/i&gt;" in page and "<i>1</i>" not in page
    assert "nobody judged" in page and "1 of 3 trials solved" in page
    assert 'class="call malformed">pay(' in page
    assert 'class="observation tool_error">coin &#39;x&#39; is not known' in page


def test_a_run_that_explored_nothing_says_what_would(tmp_path):
    make_run(tmp_path / "plain")
    page = TestClient(pages_app(tmp_path)).get("/run/memory?name=plain").text
    assert "apprentice explore" in page
