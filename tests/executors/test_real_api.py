"""A real API behind a backend's interface: keys from the environment, and whose fault a failure is."""

import asyncio
import json
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from executors.corpus.toolset import api_executor
from executors.errors import ConfigError
from executors.http.client import HttpConfig
from executors.listening import listen
from executors.openapi.real import RealApi, secrets_of
from executors.openapi.tools import read_openapi
from executors.types import Scene, ToolCall
from tests.executors.documents import answered
from tests.executors.shared_data import shared

KEY = {"name": "api_key", "in": "query", "required": True, "schema": {"type": "string"}}
PATHS = {
    path: {method: {"operationId": name, "parameters": [KEY], "responses": answered({"type": "object"})}}
    for path, method, name in (("/rate", "get", "rate"), ("/down", "get", "down"), ("/order", "post", "order"))
}
DOCUMENT = {"openapi": "3.0.0", "info": {"title": "Coins"}, "servers": [{"url": "http://x"}], "paths": PATHS}


@pytest.fixture
def coins():
    """A server that wants a key, and what it was asked."""
    asked: list[tuple[str, str, str]] = []
    app = FastAPI()

    @app.api_route("/{path}", methods=["GET", "POST"])
    async def serve(path: str, request: Request) -> JSONResponse:
        key = request.query_params.get("api_key", "")
        asked.append((request.method, path, key))
        if key != "s3cret":
            return JSONResponse({"error": "bad key"}, 401)
        return JSONResponse({"rate": 7, "key": key}, 200 if path == "rate" else 503)

    with listen(app) as listening:
        yield listening.url, asked


def real(url: str) -> RealApi:
    http = HttpConfig(allow_private=(urlsplit(url).netloc,))
    return RealApi(read_openapi(DOCUMENT), server=url, secrets={"api_key": "COINS_API_KEY"}, http=http)


def observed(backend: RealApi, name: str, **arguments):
    return asyncio.run(_observed(backend, name, arguments))


async def _observed(backend, name, arguments):
    session = api_executor(backend).open(Scene())
    return await session.arun(ToolCall(name, arguments))


def test_the_key_is_sent_and_neither_asked_for_nor_shown(coins, monkeypatch):
    monkeypatch.setenv("COINS_API_KEY", "s3cret")
    url, asked = coins
    backend = real(url)
    assert all("api_key" not in one.parameters["properties"] for one in backend.api.operations)
    seen = observed(backend, "rate")
    assert (seen.status, seen.content) == ("ok", 'Status Code: 200. Response: {"rate":7,"key":"[REDACTED]"}')
    assert asked == [("GET", "rate", "s3cret")]
    assert observed(backend, "rate", api_key="mine").status == "bad_call"
    assert len(asked) == 1


def test_a_server_that_fails_is_tried_again_and_no_fault_of_the_call_unless_that_may_do_harm(coins, monkeypatch):
    monkeypatch.setenv("COINS_API_KEY", "s3cret")
    url, asked = coins
    assert observed(real(url), "down").status == "unavailable"
    assert len(asked) == 4
    assert observed(real(url), "order").status == "unavailable"
    assert len(asked) == 5


def test_a_key_that_is_not_taken_is_no_fault_of_the_call(coins, monkeypatch):
    monkeypatch.setenv("COINS_API_KEY", "old one")
    seen = observed(real(coins[0]), "rate")
    assert seen.status == "unavailable" and "Coins says who is asking wrongly" in seen.content


def test_a_key_that_is_not_there_is_told_before_anything_is_sent(coins, monkeypatch):
    monkeypatch.delenv("COINS_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="COINS_API_KEY is not set"):
        real(coins[0])
    assert secrets_of("apilayer coins", {"api-key": "***"}) == (
        {"api-key": "APILAYER_COINS_API_KEY"},
        ["APILAYER_COINS_API_KEY"],
    )
    monkeypatch.setenv("MINE", "s3cret")
    assert secrets_of("Coins", {"api_key": "***"}, {"api_key": "MINE"}) == ({"api_key": "MINE"}, [])


def test_the_11_real_apis_can_be_called_where_they_are_and_their_keys_are_hidden(monkeypatch):
    records = json.loads(shared("toolalpaca", "eval_real.json").read_text())
    hidden = {}
    for record in records:
        secrets, _ = secrets_of(record["Name"], record["Authentication"])
        for variable in secrets.values():
            monkeypatch.setenv(variable, "s3cret")
        backend = RealApi(read_openapi(record["Documentation"]), secrets=secrets)
        named = {name for one in backend.api.operations for name in one.parameters["properties"]}
        assert not named & set(secrets)
        hidden |= dict.fromkeys(secrets.values(), record["Name"])
    assert len(records) == 11 and sum(len(record["Instructions"]) for record in records) == 114
    assert set(hidden) == {"APILAYER_WEATHERSTACK_ACCESS_KEY", "WOLFRAMALPHA_APPID", "CURRENCYBEACON_API_KEY"}
