"""How runs of every recipe are served, or refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.tools.operations import operation_tools
from executors.types import ToolCall
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_head import ToolHead, fresh_head, merged, output_matrix
from rl.recipes import served
from rl.recipes.served import Wanted, open_run
from rl.recipes.trained import evaluate_checkpoint, open_trained
from rl.run import Run
from rl.serving.chat import ChatServer
from rl.serving.execution import Execution
from rl.serving.wire import read
from rollouts.types import Sampling
from tests.executors.shared_data import shared

CONFIG = Path(__file__).parents[2] / "configs/toolkengpt/tiny.yaml"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A ToolkenGPT run whose model answers everything by a call of ``add`` and then ends."""
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("funcqa")
    run = Run.start(tmp_path / "run", config_text="", resolved=yaml.safe_load(CONFIG.read_text()), resume=False)
    names = tuple(tool.spec.name for tool in operation_tools())
    tokenizer = build_tokenizer(["Q: 0123456789, A:"], vocab_size=300, max_length=256)
    model = build_model(len(tokenizer), width=16, layers=1, heads=2, max_length=256, seed=0)
    head = fresh_head(names, output_matrix(model).shape[1], 0)
    grown, wide, _ = merged(model, tokenizer, ToolHead(names, head.weight))
    grown.save_pretrained(run.folder("checkpoints") / "merged")
    wide.save_pretrained(run.folder("checkpoints") / "merged")
    (run.folder("evaluation") / "summary.json").write_text(json.dumps({"learned": {"bias": 40.0}}))
    return run


def body(*messages, **fields) -> bytes:
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


async def test_a_toolken_run_answers_with_ordinary_tool_calls(run, monkeypatch):
    opened = open_run(run.path)
    assert (opened.choice, opened.format.name) == ("merged", "toolken")
    assert opened.opener is not None
    policy: Any = opened.opener(opened.checkpoints / "merged", 0)
    written = iter(["", "3, 4", " It is 7."])
    engine = policy.engine
    complete = engine.complete
    asked = []

    async def scripted(request):
        """The engine's own completion, with what it would have written once trained."""
        asked.append(request)
        completion = await complete(request)
        text = next(written)
        tool = policy.tokens["add"]
        ids = (tool,) if not text else tuple(engine.tokenizer.encode(text))
        return replace(
            completion,
            text=text or engine.tokenizer.decode([tool]),
            token_ids=ids,
            mask=(True,) * len(ids),
            logprobs=(0.0,) * len(ids),
        )

    monkeypatch.setattr(engine, "complete", scripted)
    chat = ChatServer(policy, opened.format, opened.catalog.specs(), sampling=Sampling(max_tokens=8))
    tools = [spec.as_openai() for spec in opened.catalog.specs(["add"])]
    question = {"role": "user", "content": "3 plus 4?"}
    first = (await chat.complete(read(body(question, tools=tools), None)))["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    (call,) = first["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"numbers": [3, 4]})
    result = {"role": "tool", "tool_call_id": call["id"], "content": "7"}
    final = (await chat.complete(read(body(question, first["message"], result, tools=tools), None)))["choices"][0]
    assert (final["message"]["content"], final["finish_reason"]) == ("It is 7.", "stop")
    assert [part if isinstance(part, str) else part.text for part in asked[-1].segments][1:] == ["", "7"]
    assert asked[-1].turns[0].calls == (ToolCall("add", {"numbers": [3, 4]}),)


async def test_a_toolken_run_calls_its_tools_here_where_it_may(run):
    opened = open_run(run.path)
    assert opened.opener is not None
    policy = opened.opener(opened.checkpoints / "merged", 0)
    execution = Execution(executor=Executor(opened.catalog))
    chat = ChatServer(
        policy, opened.format, opened.catalog.specs(), sampling=Sampling(max_tokens=4), execution=execution
    )
    told = await chat.complete(
        read(body({"role": "user", "content": "3 plus 4?"}, apprentice={"execute": True, "max_turns": 1}), None)
    )
    turns = told["choices"][0]["message"]["apprentice"]["episode"]["turns"]
    assert turns and turns[0]["calls"], "the bias makes it call at once"


def test_a_toolken_run_is_evaluated_on_its_test_sets(run):
    config = yaml.safe_load(run.resolved.read_text())
    run.resolved.write_text(yaml.safe_dump(config | {"questions": 1, "max_calls": 1, "max_tokens": 2}))
    ratios = evaluate_checkpoint(run.path, "best", "test")
    assert {"one_hop_answer", "multi_hop_answer"} <= ratios.keys()
    assert all(len(ratio.parts) == 1 for ratio in ratios.values())
    with pytest.raises(ConfigError, match="leave --checkpoint and --split out"):
        evaluate_checkpoint(run.path, "best", "validation")


def test_runs_that_cannot_be_asked_say_why_and_what_to_do(run, tmp_path):
    (run.path / "evaluation" / "summary.json").unlink()
    with pytest.raises(DataError, match="is not finished"):
        open_run(run.path)
    strange = Run.start(tmp_path / "strange", config_text="", resolved={"recipe": "other"}, resume=False)
    with pytest.raises(ConfigError, match="is a run of 'other', which is no recipe here: trice, ste"):
        open_run(strange.path)
    resolved = {"recipe": "toolalpaca", "name": "x"}
    with pytest.raises(DataError, match="has no corpus yet; 'apprentice train' with --resume"):
        open_run(Run.start(tmp_path / "empty", config_text="", resolved=resolved, resume=False).path)
    for recipe in ("toolalpaca", "ste"):
        other = Run.start(tmp_path / recipe, config_text="", resolved={"recipe": recipe}, resume=False)
        with pytest.raises(DataError, match="has no checkpoint 'best'; there are: none"):
            evaluate_checkpoint(other.path, "best", "test")
        with pytest.raises(ConfigError, match=f"is a run of '{recipe}', and has to be one of trice"):
            open_trained(other.path)


def test_a_checkpoint_that_such_a_run_cannot_serve_is_refused_instead_of_passed_over(run):
    for asked in ("best", "newest", "merged"):
        assert served._served("run", run.path, Wanted(asked)).checkpoint == "merged"
    with pytest.raises(ConfigError, match=r"'step-3'.*only checkpoints/merged"):
        served._served("run", run.path, Wanted("step-3"))
    with pytest.raises(ConfigError, match=r"'step-3'.*only checkpoints/merged"):
        served.chat_with(run.path, "step-3")


def test_what_is_asked_for_is_read_before_anything_starts(monkeypatch, tmp_path):
    assert Wanted(adapters=("terse=a/b", "long=c")).folders() == {"terse": Path("a/b"), "long": Path("c")}
    with pytest.raises(ConfigError, match="has to read NAME=FOLDER"):
        Wanted(adapters=("terse",)).folders()
    monkeypatch.setattr(served, "serve_run", lambda *_, **__: pytest.fail("it started"))
    with pytest.raises(DataError, match="is not a run"):
        served.serve_runs([tmp_path], Wanted(), split=None, host="127.0.0.1", port=8000)
