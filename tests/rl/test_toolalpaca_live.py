"""ToolAlpaca's sets, played from the command: a real API that wants a key, and what is nobody's fault but its own."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from executors.errors import ConfigError
from executors.listening import listen
from rl.evaluation.suites.command import evaluate_suite
from tests.executors.documents import answered
from tests.executors.endpoints import endpoint
from tests.executors.shared_data import shared

KEY = {"name": "api_key", "in": "query", "required": True, "schema": {"type": "string"}}
COIN = {"name": "coin", "in": "query", "required": True, "schema": {"type": "string"}}
RATE = {"operationId": "rate", "parameters": [KEY, COIN], "responses": answered({"type": "object"})}
DOCUMENT = {
    "openapi": "3.0.0",
    "info": {"title": "Coins"},
    "servers": [{"url": "https://coins.example.com"}],
    "paths": {"/rate": {"get": RATE}},
}
WANTED = ("EUR", "USD", "GBP")


class Coins:
    """A server of rates that wants a key, and is out of order for some coins."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/rate")
        async def rate(request: Request) -> JSONResponse:
            coin, key = request.query_params["coin"], request.query_params.get("api_key", "")
            self.asked.append((coin, key))
            if key != "s3cret":
                return JSONResponse({"error": "who are you?"}, 401)
            return JSONResponse({"rate": 7}, 500 if coin in self.down else 200)

        return app


def said(body: dict[str, Any]) -> str:
    """A policy that asks for the right coin, but for pounds, and says what it saw; and a judge that says yes."""
    text = body["messages"][-1]["content"]
    if "## Standard Answer" in text:
        return "## Analysis\nFine.\n\n## Results\nProcess Correctness: Yes\nFinal Response Correctness: No"
    asked = text.rpartition("Begin!")[2]
    if "ASSISTANT Observation:" in asked:
        return " I know it.\nASSISTANT Response: It is 7."
    coin = next((one for one in WANTED if one in asked), "none")
    coin = "CHF" if coin == "GBP" else coin
    return f' I look.\nASSISTANT Action: rate\nASSISTANT Action Input: {{"coin": "{coin}"}}'


@pytest.fixture
def coins(tmp_path):
    record = {
        "Name": "Coins",
        "Authentication": {"api_key": "***"},
        "external_tools": ["retrieval"],
        "Documentation": json.dumps(DOCUMENT),
        "NLDocumentation": "rate: what a coin is worth",
        "Instructions": [f"What is {coin} worth?" for coin in WANTED],
        "Golden_Answers": [
            [{"Action": "rate", "Action_Input": json.dumps({"api_key": "literal", "coin": coin})}] for coin in WANTED
        ],
    }
    (tmp_path / "records.json").write_text(json.dumps([record]))
    server = Coins()
    with listen(server.app()) as listening, endpoint(said) as fake:
        policy = {"kind": "endpoint", "base_url": fake.url, "model": "m", "mode": "text", "retries": 0}
        settings = [
            "apis=real",
            f"records={tmp_path / 'records.json'}",
            f"servers={{Coins: {listening.url}}}",
            f"policy={json.dumps(policy)}",
            f"kept={tmp_path / 'kept'}",
        ]
        yield server, fake, settings, {**policy, "concurrency": 2}


def figures(settings, capsys, **more) -> dict[str, Any]:
    added = [f"{name}={json.dumps(value)}" for name, value in more.items()]
    evaluate_suite("toolalpaca", None, None, [*settings, *added], as_json=True, out=None)
    return json.loads(capsys.readouterr().out)


def test_what_an_api_is_to_blame_for_is_not_scored_and_only_that_is_played_again(coins, capsys, monkeypatch):
    monkeypatch.setenv("COINS_API_KEY", "s3cret")
    server, fake, settings, policy = coins
    server.down = {"USD"}
    first = figures(settings, capsys)
    assert (first["n"], first["unreached"], first["left_out"]) == (2, 1, 0)
    assert (first["procedure_by_rule"], first["answered"]) == (50, 100)
    assert {key for _, key in server.asked} == {"s3cret"}
    assert not any("s3cret" in json.dumps(body) or "api_key" in json.dumps(body) for body in fake.asked)
    server.down, server.asked, before = set(), [], len(fake.asked)
    again = figures(settings, capsys, judge=policy)
    assert server.asked == [("USD", "s3cret")] and len(fake.asked) == before + 1 + 3
    assert (again["n"], again["unreached"]) == (3, 0)
    assert again["procedure_by_rule"] == pytest.approx(66.67)
    assert (again["procedure"], again["response"], again["overall"]) == (100, 0, 0)
    evaluate_suite(
        "toolalpaca", None, Path(settings[-1].removeprefix("kept=")) / "judged.json", [], as_json=True, out=None
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["procedure"], told["parsed"]) == (100, 3)
    figures(settings, capsys, judge=policy)
    assert len(fake.asked) == before + 1 + 3


def test_a_key_that_is_not_taken_scores_nothing(coins, capsys, monkeypatch):
    monkeypatch.setenv("COINS_API_KEY", "old one")
    told = figures(coins[2], capsys)
    assert (told["n"], told["unreached"], told["procedure_by_rule"]) == (0, 3, None)


def test_an_api_without_its_key_is_left_out_and_said_so(coins, capsys, monkeypatch):
    monkeypatch.delenv("COINS_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"no API to play: Coins: left out: COINS_API_KEY is not set"):
        figures(coins[2], capsys)
    monkeypatch.setenv("MY_COINS", "s3cret")
    assert figures(coins[2], capsys, secrets={"Coins": {"api_key": "MY_COINS"}})["n"] == 3


def test_attempts_of_another_policy_are_not_taken_for_this_ones(coins, capsys, monkeypatch):
    monkeypatch.setenv("COINS_API_KEY", "s3cret")
    figures(coins[2], capsys)
    with pytest.raises(ConfigError, match="holds attempts of another policy"):
        figures(coins[2], capsys, max_turns=3)


def test_the_simulated_set_is_played_by_a_policy_too(coins, capsys):
    shared("toolalpaca", "eval_simulated.json")
    settings = [*coins[2][3:], "only=[Axolotl]"]
    told = figures(settings, capsys)
    assert told["n"] == 10 and told["unreached"] == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([], "--judged FILE, or lets a policy play"),
        (["only=[Nobody]"], "there is no API 'Nobody'"),
    ],
)
def test_what_cannot_be_played_is_told(coins, capsys, settings, says):
    given = [*coins[2], *settings] if settings else []
    with pytest.raises(ConfigError, match=says):
        evaluate_suite("toolalpaca", None, None, given, as_json=True, out=None)
