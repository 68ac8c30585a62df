"""Which weights answer: checkpoints by name, adapters on one model, and newer weights while requests go on."""

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from transformers import PreTrainedTokenizerBase

from executors.errors import ConfigError, DataError
from rl.learner import checkpoint
from rl.models.lora import Adapter
from rl.models.tiny import build_model
from rl.serving.chat import ChatServer
from rl.serving.gate import Figures
from rl.serving.http import ChatEngine, build_api
from rl.serving.policies import LocalPolicy
from rl.serving.published import Published, read_adapter
from rl.serving.split import SPLIT, Router, Split, read_shares
from rl.serving.weights import Weights
from rl.serving.wire import ChatError, read
from rollouts.formats.inline import InlineFormat
from rollouts.policy import Policy
from rollouts.types import Sampling
from tests.rl.decoding import digits_tokenizer, loud, request

QUESTION = "12 and 30?"
LONG = 24
LAST = 7


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return digits_tokenizer(64)


def save(folder: Path, step: int, tokenizer: PreTrainedTokenizerBase, **fields: Any) -> Path:
    """A checkpoint whose replies are those of no other step."""
    model = loud(build_model(len(tokenizer), width=16, layers=1, heads=2, max_length=64, seed=step))
    with torch.no_grad():
        for token in range(len(tokenizer)):  # it writes what can be read, and does not end by itself
            text = tokenizer.decode([token])
            if token <= 2 or not text.isascii() or not text.isprintable():
                model.get_input_embeddings().weight[token] = 0
    return checkpoint.save(folder, step, model, tokenizer, {}, **fields)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    for step in (1, 2, 3):
        save(tmp_path, step, tokenizer)
    (tmp_path / "best").symlink_to("step-2")
    return tmp_path


@pytest.fixture(scope="module")
def expected(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What the weights of each step write, alone."""
    folder = tmp_path_factory.mktemp("alone")
    asked = request(f"{QUESTION}\n", prefix="Answer: ", max_tokens=LONG)
    said = {
        step: asyncio.run(LocalPolicy("alone", str(save(folder, step, tokenizer)))().complete(asked)).text
        for step in range(1, LAST + 1)
    }
    assert len(set(said.values())) == LAST
    return said


def build(policy: Policy) -> ChatServer:
    return ChatServer(policy, InlineFormat(), [], sampling=Sampling(max_tokens=LONG))


def open_model(path: Path, version: int) -> Policy:
    return LocalPolicy("run", str(path), version)()


def weights(folder: Path, choice: str = "best", **fields: Any) -> Weights:
    return Weights("run", Published(folder, choice), open_model, build, **fields)


def client(router: Router, figures: Figures | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_api(router, figures=figures)), base_url="http://test")


def router(held: Weights) -> Router:
    return Router({"run": ChatEngine(held)}, None, Figures())


def asking(model: str = "run", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": QUESTION}], **fields}


def replied(body: dict[str, Any]) -> str:
    return body["choices"][0]["message"]["apprentice"]["reply"]


async def test_a_request_names_a_checkpoint_and_the_best_answers_by_default(folder, expected):
    async with client(router(weights(folder))) as http:
        models = (await http.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models] == ["run", "run:step-3", "run:step-2", "run:step-1"]
        assert (models[0]["checkpoint"], models[0]["version"]) == ("step-2", 2)
        for name, step in (("run", 2), ("run:step-3", 3), ("run:step-1", 1), ("run:step-2", 2)):
            body = (await http.post("/v1/chat/completions", json=asking(name))).json()
            assert (body["model"], body["system_fingerprint"]) == (name, f"v{step}")
            assert replied(body) == expected[step]
        for name in ("another", "run:step-9", "run:../step-1", "run:", "run:best/"):
            answer = await http.post("/v1/chat/completions", json=asking(name))
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
            assert "run, run:step-3, run:step-2, run:step-1" in answer.json()["error"]["message"]
        assert (await http.get("/v1/models/run:step-1")).json()["version"] == 1


async def test_the_newest_and_the_best_are_found_as_the_folder_is(folder, tmp_path, tokenizer):
    assert Published(folder, "newest").default().version == 3
    assert Published(folder, "step-1").default().version == 1
    (folder / "best").unlink()
    assert Published(folder, "best").default().version == 3
    save(folder, 4, tokenizer)
    (folder / "step-4" / "model.safetensors").write_bytes(b"half")
    assert Published(folder, "newest").default().version == 3
    with pytest.raises(DataError, match=r"no checkpoint 'step-7'; there are: step-3, step-2, step-1"):
        Published(folder, "step-7").default()


async def test_models_that_nobody_uses_make_room_and_those_in_use_stay(folder, expected):
    held = weights(folder, keep=1)
    gone = []
    for step in (1, 3, 1):
        async with held.lease(f"run:step-{step}") as server:
            gone.append(weakref.ref(server.policy))
            assert held.held == 2
    gc.collect()
    assert [one() is None for one in gone] == [True, True, False]
    async with held.lease("run:step-3") as old:
        waiting = asyncio.ensure_future(held.lease("run:step-1").__aenter__())
        await asyncio.sleep(0.05)
        assert not waiting.done() and held.held == 2
        assert (await old.complete(read(json.dumps(asking()).encode(), None)))["system_fingerprint"] == "v3"
    assert (await waiting).policy.version == 1
    assert held.held == 2


async def test_weights_are_renewed_under_load_without_a_request_failed_or_mixed(folder, expected, tokenizer):
    held = weights(folder)
    following = asyncio.ensure_future(held.follow(0.01))
    answered: list[int] = []
    done = asyncio.Event()

    async def ask(number: int) -> None:
        async with client(router(held)) as http:
            while not done.is_set():
                if number % 2:
                    text, version = await streamed(http)
                else:
                    body = (await http.post("/v1/chat/completions", json=asking())).raise_for_status().json()
                    text, version = replied(body), body["system_fingerprint"]
                assert text == expected[int(version[1:])]
                answered.append(int(version[1:]))

    clients = [asyncio.ensure_future(ask(number)) for number in range(4)]
    for step in range(4, LAST + 1):
        await asyncio.to_thread(save, folder, step, tokenizer)
        link = folder / ".best"
        link.symlink_to(f"step-{step}")
        link.rename(folder / "best")
        until = len(answered) + 8
        while held.version != step or len(answered) < until:
            await asyncio.wait([*clients, following], timeout=0.02, return_when=asyncio.FIRST_EXCEPTION)
            for task in (*clients, following):
                if task.done():
                    task.result()
    done.set()
    await asyncio.gather(*clients)
    following.cancel()
    assert set(answered) >= {2, LAST} and answered[-1] == LAST
    assert held.held <= 2


async def streamed(http: httpx.AsyncClient) -> tuple[str, str]:
    """The reply of a stream, and the version that every chunk of it tells."""
    answer = await http.post("/v1/chat/completions", json=asking(stream=True))
    lines = [line.removeprefix("data: ") for line in answer.raise_for_status().text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    (version,) = {chunk["system_fingerprint"] for chunk in chunks}
    return chunks[-1]["choices"][0]["delta"]["apprentice"]["reply"], version


async def test_weights_that_cannot_be_loaded_leave_the_old_ones_answering(folder, tokenizer):
    held = weights(folder, "newest")
    save(folder, 4, tokenizer)
    config = folder / "step-4" / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 3'))
    (folder / "step-4" / "MANIFEST.json").unlink()
    with pytest.raises(DataError):
        await held.refresh()
    assert not await held.refresh()
    assert held.version == 3
    with pytest.raises(ChatError, match="cannot be loaded") as caught:
        async with held.lease("run:step-4"):
            pass
    assert caught.value.status == 503
    save(folder, 5, tokenizer)
    assert await held.refresh() and held.version == 5


async def test_adapters_share_one_model_and_are_renewed_too(tmp_path, tokenizer):
    model = loud(build_model(len(tokenizer), width=16, layers=1, heads=2, max_length=64, seed=1))
    checkpoint.begin(tmp_path, model, tokenizer, adapter=Adapter(r=2))
    for step in (1, 2):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.5 * step)
        checkpoint.save(tmp_path, step, model, tokenizer, {})
    held = weights(tmp_path, "step-1", adapters={"terse": read_adapter(tmp_path / "step-2", "terse")})
    async with client(router(held)) as http:
        names = [model["id"] for model in (await http.get("/v1/models")).json()["data"]]
        assert names == ["run", "run:step-2", "run:step-1", "run:step-0", "run:base", "terse"]
        bodies = await asyncio.gather(*(http.post("/v1/chat/completions", json=asking(name)) for name in names))
        replies = {name: replied(body.json()) for name, body in zip(names, bodies, strict=True)}
    assert held.held == 1
    for name, step in (("run", 1), ("run:step-2", 2), ("run:step-1", 1), ("run:step-0", 0), ("terse", 2)):
        alone = LocalPolicy("alone", str(tmp_path / f"step-{step}"))()
        asked = request(f"{QUESTION}\n", prefix="Answer: ", max_tokens=LONG)
        assert replies[name] == (await alone.complete(asked)).text, name
    assert replies["run:base"] == replies["run:step-0"] != replies["run:step-1"] != replies["run:step-2"]
    checkpoint.save(tmp_path, 3, model, tokenizer, {})
    newest = weights(tmp_path, "newest")
    assert newest.version == 3
    checkpoint.save(tmp_path, 4, model, tokenizer, {})
    assert await newest.refresh() and (newest.version, newest.held) == (4, 1)
    with pytest.raises(DataError, match="no adapter directory"):
        read_adapter(tmp_path / "base", "x")


async def test_two_policies_share_requests_and_a_conversation_stays_with_one(folder):
    figures = Figures()
    engines = {"old": ChatEngine(named(folder, "old", "step-1")), "new": ChatEngine(named(folder, "new", "step-3"))}
    both = Router(engines, Split({"old": 90, "new": 10}), figures)
    async with client(both, figures) as http:
        models = (await http.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models][:2] == [SPLIT, "old"]
        who = {}
        for number in (*range(12), *range(12)):
            fields = {"user": f"user-{number}"} if number % 2 else {"metadata": {"session": f"s-{number}"}}
            body = (await http.post("/v1/chat/completions", json=asking(SPLIT, **fields))).json()
            assert body["system_fingerprint"] == {"old": "v1", "new": "v3"}[body["model"]]
            assert who.setdefault(number, body["model"]) == body["model"]
        assert (await http.post("/v1/chat/completions", json=asking("new"))).json()["model"] == "new"
        assert (await http.post("/v1/chat/completions", json=asking("new:step-1"))).json()["system_fingerprint"] == "v1"
        assert (await http.post("/v1/chat/completions", json=asking("neither"))).status_code == 404
        text = (await http.get("/metrics")).text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    counts = {one.labels["policy"]: one.value for one in samples if one.name == "apprentice_serve_policy_answers_total"}
    of_new = sum(2 for policy in who.values() if policy == "new")
    assert counts == {"old": 24 - of_new, "new": of_new + 2}


def named(folder: Path, name: str, choice: str) -> Weights:
    return Weights(name, Published(folder, choice), open_model, build)


def test_a_split_gives_each_policy_its_share_of_many_keys():
    split = Split({"a": 90.0, "b": 10.0, "c": 0.0})
    chosen = [split.choose(f"key-{number}") for number in range(4000)]
    assert 0.87 < chosen.count("a") / len(chosen) < 0.93
    assert "c" not in chosen
    assert read_shares("3, 1", ["a", "b"]) == Split({"a": 3.0, "b": 1.0})
    assert read_shares(None, ["a", "b"]) == Split({"a": 1.0, "b": 1.0})
    assert read_shares(None, ["a"]) is None
    for text, names in (
        ("90", ["a", "b"]),
        ("x,y", ["a", "b"]),
        ("1", ["a"]),
        ("0,0", ["a", "b"]),
        ("-1,2", ["a", "b"]),
    ):
        with pytest.raises(ConfigError):
            read_shares(text, names)
