"""A checkpoint held by ``ray.serve.llm``, against a stand-in for it on Ray Serve: the surface is that of our engine."""

import dataclasses
import importlib
import json
import sys

import openai
import pytest

from executors.errors import ConfigError, DataError
from rl.recipes.served import Wanted
from rl.serving import llm
from rl.serving.app import LlmOptions, Served, serve_run
from tests.rl.llm_stand_in import VLLM, application
from tests.rl.overfitted import ANSWERS, CATALOG, FORMAT, SUM, write_checkpoint
from tests.rl.test_serve import free_port

MODEL = "by-heart"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def _vllm(tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text(VLLM)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield
    sys.modules.pop("vllm", None)
    importlib.invalidate_caches()


def served(checkpoint, **fields) -> Served:
    return Served(
        name=MODEL,
        checkpoints=checkpoint.parent,
        checkpoint=checkpoint.name,
        format=FORMAT,
        catalog=CATALOG,
        llm=LlmOptions(),
        **fields,
    )


@pytest.mark.ray
@pytest.mark.usefixtures("_vllm")
def test_calls_answers_and_streams_are_those_of_any_other_engine(checkpoint, monkeypatch):
    monkeypatch.setattr(llm, "llm_application", application)
    server = serve_run(served(checkpoint), port=free_port(), blocking=False)
    tools = [spec.as_openai() for spec in CATALOG.specs()]
    asked = [{"role": "user", "content": SUM}]
    try:
        with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=60) as client:
            choice = client.chat.completions.create(model=MODEL, messages=asked, tools=tools).choices[0]
            (call,) = choice.message.tool_calls
            assert json.loads(call.function.arguments) == {"expression": "2+3"}
            told = [*asked, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "5"}]
            deltas = list(client.chat.completions.create(model=MODEL, messages=told, tools=tools, stream=True))
            assert "".join(delta.choices[0].delta.content or "" for delta in deltas) == ANSWERS[SUM]
            with pytest.raises(openai.BadRequestError, match="response_format"):
                client.chat.completions.create(
                    model=MODEL, messages=asked, response_format={"type": "json_object"}, tools=tools
                )
    finally:
        server.stop()


def test_without_vllm_it_is_said_before_ray_starts(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match="vLLM cannot be imported"):
        serve_run(served(checkpoint), port=free_port(), blocking=False)


@pytest.mark.usefixtures("_vllm")
def test_what_needs_new_weights_is_refused_before_ray_starts(checkpoint):
    with pytest.raises(ConfigError, match="--follow needs an engine that takes new weights"):
        serve_run(served(checkpoint, follow=1.0), port=free_port(), blocking=False)
    opener = llm.LlmOpener(MODEL, checkpoint, None, 96)
    with pytest.raises(DataError, match=f"the engine holds {checkpoint.name} alone"):
        opener(checkpoint.parent / "step-7", 7)


def test_what_a_model_reads_is_what_was_asked_for_or_what_it_was_made_for(checkpoint, tmp_path):
    assert llm.context_of(checkpoint, LlmOptions(engine={"max_model_len": 64})) == 64
    assert llm.context_of(checkpoint, LlmOptions()) == 96
    said = json.loads((checkpoint / "config.json").read_text())
    said["max_position_embeddings"] = None
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match="--engine-option max_model_len=4096"):
        llm.context_of(tmp_path, LlmOptions())


def test_options_of_the_engine_are_read_as_yaml_and_only_with_it():
    wanted = Wanted(llm=True, options=("max_model_len=4096", "enforce_eager=true"), replicas=2)
    assert wanted.engine() == LlmOptions(replicas=2, engine={"max_model_len": 4096, "enforce_eager": True})
    assert Wanted().engine() is None
    with pytest.raises(ConfigError, match="are read with --engine llm"):
        dataclasses.replace(wanted, llm=False).engine()
    with pytest.raises(ConfigError, match="has to read NAME=VALUE"):
        Wanted(llm=True, options=("max_model_len",)).engine()
