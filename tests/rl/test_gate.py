"""Who may ask the endpoint, how much and how long."""

import asyncio
import json
import logging

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from prometheus_client.parser import text_string_to_metric_families

from executors.errors import ConfigError
from rl.serving.gate import Figures, Gate, Limits
from rl.serving.keys import Keyring, keys_from_environment

KEY, OTHER = "k" * 32, "o" * 32


def app(limits: Limits = Limits(), keys: Keyring | None = None, figures: Figures | None = None) -> FastAPI:
    api = FastAPI()
    figures = figures or Figures()
    api.add_middleware(
        Gate, limits=limits, keys=keys or Keyring(), figures=figures, routes=frozenset({"/echo", "/slow"})
    )
    api.state.open = asyncio.Event()

    @api.post("/echo")
    async def echo(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @api.get("/slow")
    async def slow() -> dict[str, bool]:
        await api.state.open.wait()
        return {"done": True}

    @api.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces():
            for piece in ("a", "b"):
                await asyncio.sleep(0.02)
                yield piece

        return StreamingResponse(pieces())

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return api


def client(api: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test")


@pytest.fixture
def keys(monkeypatch) -> Keyring:
    monkeypatch.setenv("APPRENTICE_API_KEYS", f"team:{KEY}, {OTHER}")
    return keys_from_environment()


async def test_without_keys_everyone_may_ask():
    async with client(app()) as http:
        assert (await http.post("/echo", content=b"123")).json() == {"bytes": 3}


async def test_with_keys_only_who_has_one_may_ask_and_health_is_open(keys):
    assert sorted(keys.digests().values()) == ["key-2", "team"]
    assert KEY not in repr(keys)
    async with client(app(keys=keys)) as http:
        for headers in ({}, {"authorization": f"Bearer {KEY}x"}, {"authorization": KEY}, {"authorization": "Bearer "}):
            answer = await http.post("/echo", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["code"] == "invalid_api_key"
        for key in (KEY, OTHER):
            assert (await http.post("/echo", headers={"authorization": f"Bearer {key}"})).status_code == 200
        assert (await http.get("/health")).status_code == 200


def test_a_key_that_is_too_short_is_refused(monkeypatch):
    monkeypatch.setenv("APPRENTICE_API_KEYS", "team:secret")
    with pytest.raises(ConfigError, match="'team' has fewer than 16 characters"):
        keys_from_environment()
    monkeypatch.delenv("APPRENTICE_API_KEYS")
    assert not keys_from_environment().required


async def test_a_body_that_is_too_large_is_refused_whatever_its_headers_say():
    async def pieces():
        for _ in range(10):
            yield b"x" * 100

    async with client(app(Limits(max_body=500))) as http:
        assert (await http.post("/echo", content=b"x" * 501)).status_code == 413
        assert (await http.post("/echo", content=pieces())).status_code == 413
        assert (await http.post("/echo", content=b"x" * 500)).status_code == 200


async def test_more_at_once_than_there_is_room_for_are_told_to_come_back():
    api = app(Limits(concurrency=2, retry_after=7))
    async with client(api) as http:
        held = [asyncio.ensure_future(http.get("/slow")) for _ in range(2)]
        await asyncio.sleep(0.05)
        turned_away = await http.get("/slow")
        assert (turned_away.status_code, turned_away.headers["retry-after"]) == (429, "7")
        assert (await http.get("/health")).status_code == 200
        api.state.open.set()
        assert [(await answer).status_code for answer in held] == [200, 200]
        assert (await http.get("/slow")).status_code == 200


async def test_each_key_has_its_own_rate(keys):
    async with client(app(Limits(per_minute=2), keys)) as http:
        codes = [(await http.post("/echo", headers={"authorization": f"Bearer {KEY}"})).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        assert (await http.post("/echo", headers={"authorization": f"Bearer {OTHER}"})).status_code == 200


async def test_an_answer_that_does_not_begin_in_time_is_a_503():
    async with client(app(Limits(timeout=0.05))) as http:
        answer = await http.get("/slow")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        assert "retry-after" in answer.headers


async def test_a_stream_passes_through_and_outlasts_the_time_for_its_beginning():
    async with client(app(Limits(timeout=0.03))) as http:
        assert (await http.get("/stream")).text == "ab"


async def test_the_log_and_the_figures_tell_of_requests_and_never_of_keys_or_contents(keys, caplog):
    figures = Figures()
    with caplog.at_level(logging.INFO, logger="apprentice.access"):
        async with client(app(keys=keys, figures=figures)) as http:
            await http.post("/echo?token=abc", content=b"secret words", headers={"authorization": f"Bearer {KEY}"})
            await http.post("/echo", headers={"authorization": "Bearer wrong-wrong-wrong-wrong"})
            await http.get("/never/heard/of", headers={"authorization": f"Bearer {KEY}"})
    entries = [json.loads(record.message) for record in caplog.records if record.name == "apprentice.access"]
    assert [(entry["status"], entry["key"], entry["route"]) for entry in entries] == [
        (200, "team", "/echo"),
        (401, None, "/echo"),
        (404, "team", "other"),
    ]
    assert not any(word in caplog.text for word in (KEY, "secret", "wrong-wrong", "abc", "heard"))
    text = figures.text().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    counted = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in samples
        if sample.name == "apprentice_serve_requests_total"
    }
    assert counted == {("/echo", "200"): 1, ("/echo", "401"): 1, ("other", "404"): 1}


async def test_every_answer_has_an_id_that_is_in_the_log(caplog):
    with caplog.at_level(logging.INFO, logger="apprentice.access"):
        async with client(app()) as http:
            id = (await http.post("/echo")).headers["x-request-id"]
    assert json.loads(caplog.records[-1].message)["request"] == id


async def test_keys_of_a_file_change_while_the_endpoint_runs(monkeypatch, tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# of the team\nteam:{KEY}\n")
    monkeypatch.setenv("APPRENTICE_API_KEYS_FILE", str(path))
    now = [0.0]
    monkeypatch.setattr("rl.serving.keys.time.monotonic", lambda: now[0])
    keys = keys_from_environment()

    async def allowed(http: httpx.AsyncClient, key: str) -> bool:
        now[0] += 2
        return (await http.post("/echo", headers={"authorization": f"Bearer {key}"})).status_code == 200

    async with client(app(keys=keys)) as http:
        assert [await allowed(http, key) for key in (KEY, OTHER)] == [True, False]
        path.write_text(f"team:{KEY}\nnew:{OTHER}\n")
        assert [await allowed(http, key) for key in (KEY, OTHER)] == [True, True]
        path.write_text(f"new:{OTHER}\n# {'x' * 40}\n")
        assert [await allowed(http, key) for key in (KEY, OTHER)] == [False, True]
        path.write_text("short")
        assert await allowed(http, OTHER), "what cannot be read changes nothing"
        path.unlink()
        assert await allowed(http, OTHER)
        path.write_text("")
        assert not await allowed(http, OTHER), "an empty file lets nobody in, rather than everybody"
    monkeypatch.setenv("APPRENTICE_API_KEYS_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot be read"):
        keys_from_environment()
