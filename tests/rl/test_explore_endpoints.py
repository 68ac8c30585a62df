"""Models behind endpoints that imagine, attempt and judge, as a config names them; over real HTTP, with budgets."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from typer.testing import CliRunner

from executors.errors import ConfigError
from executors.listening import listen
from rl.cli import app
from rl.recipes.exploring import read_config
from rollouts.memory import Trial
from rollouts.store import Log
from tests.executors.endpoints import FakeEndpoint, endpoint, texts

ASKED = ("the square root", "a root", "how long a side is", "what squares to it", "the side of a field", "root, please")
COST = (100 * 1.0 + 20 * 10.0) / 1e6
"""Of one request, at the fake endpoint's 100 and 20 tokens."""


def model(body: dict[str, Any]) -> str:
    """Plays all three: imagines queries that differ, calls with what stands behind " of ", and finds that well done."""
    said = texts(body["messages"])
    if "Judge the attempt" in said:
        return json.dumps({"informative": True, "faithful": True, "appropriate": "[8]" not in said, "reason": "So."})
    if "documentation of one tool" in said:
        number = body["seed"] % 9
        return f"Thinking.\nUser Query: {ASKED[body['seed'] % 6]} of {number}, wanted on day {body['seed'] % 1000}"
    number = said.rpartition("User Query:")[2].split(" of ")[1].split(",")[0]
    return f'Thought: a root.\nAction: sqrt\nAction Input: {{"numbers": [{number}]}}\nObservation:'


@pytest.fixture
def served() -> Iterator[FakeEndpoint]:
    with endpoint(model) as fake:
        yield fake


def config(folder: Path, url: str, *, endpoint_usd: float | None = None, **settings: Any) -> Path:
    """A config that needs no model but the endpoint's, its exploration changed by the settings."""
    teacher = {"kind": "endpoint", "base_url": url, "model": "m", "mode": "text", "retries": 0, "max_usd": endpoint_usd}
    content = {
        "recipe": "ste",
        "name": "asked",
        "tools": [{"executors.tools.operations:operation_tools": {"names": ["sqrt"]}}],
        "policies": {"teacher": {**teacher, "prompt_price": 1.0, "completion_price": 10.0}},
        "imaginer": {"kind": "model", "policy": "teacher"},
        "actors": [{"policy": "teacher"}],
        "judge": "teacher",
        "exploration": {"episodes": 3, "trials": 2, "max_turns": 1, "focus": 0, **settings},
    }
    path = folder / "ste.yaml"
    path.write_text(json.dumps(content))
    return path


def explored(path: Path, folder: Path, *options: str) -> tuple[str, list[Trial]]:
    done = CliRunner().invoke(app, ["explore", str(path), "--run-dir", str(folder), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output, list(Log(folder / "explored.jsonl", Trial).read())


def test_endpoints_imagine_attempt_and_judge_as_a_config_says(tmp_path, served):
    said, trials = explored(config(tmp_path, served.url), tmp_path / "run")
    assert len(trials) == 6 and len({trial.task.prompt for trial in trials}) == 6
    assert all(trial.imagined_by == "model" and trial.task.gold is None for trial in trials)
    eights = [trial for trial in trials if " of 8," in trial.task.prompt]
    assert [trial.solved for trial in trials] == [trial not in eights for trial in trials]
    assert sum(trial.tokens for trial in trials) == 120 * len(served.asked)
    assert sum(trial.cost for trial in trials) == pytest.approx(COST * len(served.asked))
    examples = [json.loads(line) for line in (tmp_path / "run" / "examples.jsonl").read_text().splitlines()]
    assert all(one["turns"][0]["call"]["tool"] == "sqrt" for one in examples) and "6 trials" in said
    fields = [trial for trial in trials if "field" in trial.task.prompt]  # whose call cannot be read, whatever is said
    assert fields and {one["query"] for one in examples}.isdisjoint(trial.task.prompt for trial in fields)
    assert not (tmp_path / "run" / "checkpoints" / "base").exists()  # nothing was asked of a policy of its own
    asked = len(served.asked)
    _, again = explored(tmp_path / "ste.yaml", tmp_path / "run", "--resume")
    assert again == trials and len(served.asked) == asked


@pytest.mark.parametrize(
    ("budget", "least", "most"), [("max_calls", 2, 9), ("max_tokens", 700, 10**6), ("max_usd", 5 * COST, 1.0)]
)
def test_a_budget_ends_it_after_a_whole_trial_and_a_larger_one_goes_on(tmp_path, served, budget, least, most):
    said, first = explored(config(tmp_path, served.url, **{budget: least}), tmp_path / "run")
    assert len(first) == 2 and "2 trials" in said  # each trial makes a call and asks three times
    asked = len(served.asked)
    _, none = explored(tmp_path / "ste.yaml", tmp_path / "run", "--resume")
    assert none == first and len(served.asked) == asked
    _, all_of_them = explored(config(tmp_path, served.url, **{budget: most}), tmp_path / "run", "--resume")
    assert all_of_them[:2] == first and len(all_of_them) == 6


def test_where_nobody_reflects_the_judge_filters_afterwards_and_once(tmp_path, served):
    off: dict[str, Any] = {"without": {"reflection": False}}
    said, trials = explored(config(tmp_path, served.url, **off), tmp_path / "run")
    assert {trial.solved for trial in trials} == {None} and len(trials) == 6
    eights = {trial.task.prompt for trial in trials if " of 8," in trial.task.prompt}
    lines = {
        name: [json.loads(line)["query"] for line in (tmp_path / "run" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("examples", "rejected")
    }
    assert set(lines["rejected"]) == {prompt for prompt in eights if "field" not in prompt}
    assert lines["examples"] and eights.isdisjoint(lines["examples"])
    asked = len(served.asked)
    again, _ = explored(tmp_path / "ste.yaml", tmp_path / "run", "--resume")
    assert again == said and len(served.asked) == asked
    tokens = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())["explored"]["tokens"]
    assert tokens == 120 * asked

    called = asked - 2 * len(trials)  # each trial asks twice, each review once
    tight = {**off, "max_tokens": 240 * len(trials)}
    _, cut = explored(config(tmp_path, served.url, **tight), tmp_path / "cut")
    reviews = tmp_path / "cut" / "explored.reviews.jsonl"
    assert len(cut) == 6 and not reviews.exists()
    explored(config(tmp_path, served.url, **off), tmp_path / "cut", "--resume")
    assert len(reviews.read_text().splitlines()) == called > 0


def test_an_endpoint_without_money_or_that_cannot_be_reached_loses_nothing(tmp_path, served):
    said, few = explored(config(tmp_path, served.url, endpoint_usd=0.007), tmp_path / "poor")
    assert len(few) < 6 and "sittings ended early" in said and "budget" in said
    down = [JSONResponse({"error": {"message": "down"}}, status_code=500)]
    with endpoint(*[model] * 4, *down) as failing:
        said, one = explored(config(tmp_path, failing.url), tmp_path / "down")
    assert len(one) == 1 and "sittings ended early" in said  # the trial that was being made is made again
    resolved = tmp_path / "down" / "config.resolved.yaml"
    resolved.write_text(resolved.read_text().replace(failing.url, served.url))
    _, whole = explored(config(tmp_path, served.url), tmp_path / "down", "--resume")
    assert whole[:1] == one and len(whole) == 6


class Busy(FakeEndpoint):
    """Counts the attempts that it is asked for at once."""

    now, most = 0, 0

    async def answer(self, request: Request) -> Response:
        said = texts((await request.json())["messages"])
        attempted = "Judge the attempt" not in said and "documentation of one tool" not in said
        self.now += attempted
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= attempted
        return await super().answer(request)


@pytest.mark.parametrize("bears", [1, 3])
def test_no_more_attempts_are_asked_of_an_endpoint_at_once_than_it_bears(tmp_path, bears):
    app, busy = FastAPI(), Busy([model])
    app.add_api_route("/v1/chat/completions", busy.answer, methods=["POST"])
    with listen(app) as listening:
        path = config(tmp_path, f"{listening.url}/v1", episodes=4, trials=1, ltm_sync=4)
        content = json.loads(path.read_text())
        content["policies"]["teacher"]["concurrency"] = bears
        path.write_text(json.dumps(content))
        _, trials = explored(path, tmp_path / "run")
    assert len(trials) == 4 and busy.most == bears


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("judge=nobody", "'nobody' imagines or judges and is no endpoint"),
        ("judge=null", "name a judge"),
        ("actors=[{policy: imagined}]", "means no known call"),
        ("actors=[{policy: somebody}]", "no policy 'somebody'; there are live, imagined, teacher"),
    ],
)
def test_a_config_that_asks_nobody_is_told_before_anything_starts(tmp_path, change, said):
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        read_config(config(tmp_path, "http://127.0.0.1:9/v1"), [change])
