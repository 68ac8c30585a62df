"""Serves an environment by OpenEnv's WebSocket protocol, as its documentation has it: a counter, with tools or without.

Written from the protocol, to test against where the library is not installed.
"""

import json
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

TOOLS = [
    {
        "name": "add",
        "description": "Add to the counter.",
        "inputSchema": {"type": "object", "properties": {"more": {"type": "integer"}}, "required": ["more"]},
    }
]
ACTION = {
    "title": "CounterAction",
    "type": "object",
    "properties": {"more": {"type": "integer"}, "metadata": {"type": "object"}},
    "required": ["more"],
    "additionalProperties": False,
}


class Counter:
    """Counts to ten; what is reached is the reward, and three at once is too much for it."""

    def __init__(self) -> None:
        self.total = 0

    def reset(self, seed: int = 0, start: str = "0", **_: Any) -> dict[str, Any]:
        self.total = int(start)
        return self._seen(f"It stands at {self.total}, seed {seed}.")

    def step(self, more: int) -> dict[str, Any]:
        if more == 3:
            raise RuntimeError("three at once is too much")
        self.total += more
        return self._seen(f"{self.total}", float(more), self.total >= 10)

    def _seen(self, text: str, reward: float | None = None, done: bool = False) -> dict[str, Any]:
        return {"observation": {"text": text, "metadata": {}}, "reward": reward, "done": done}


def app(*, tools: bool, sessions: int = 8) -> FastAPI:
    """The server.

    Args:
        tools: whether the environment has tools of its own.
        sessions: that it has room for.
    """
    served = FastAPI()
    served.state.open = 0

    @served.get("/schema")
    def schema() -> dict[str, Any]:
        return {"action": ACTION, "observation": {}, "state": {}}

    @served.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        counter = Counter()
        served.state.open += 1
        try:
            if served.state.open > sessions:
                await socket.send_json(_error("CAPACITY_REACHED", f"all {sessions} sessions are taken"))
                return
            while (asked := json.loads(await socket.receive_text()))["type"] != "close":
                await socket.send_json(_answer(counter, asked["type"], asked.get("data", {}), tools))
        except WebSocketDisconnect:
            pass
        finally:
            served.state.open -= 1

    return served


def _answer(counter: Counter, kind: str, data: dict[str, Any], tools: bool) -> dict[str, Any]:
    if kind == "mcp":
        error = {"error": {"code": -32603, "message": "Environment does not support MCP"}}
        return {"type": "mcp", "data": {"jsonrpc": "2.0", **({"result": {"tools": TOOLS}} if tools else error)}}
    try:
        if kind == "reset":
            return {"type": "observation", "data": counter.reset(**data)}
        if not tools:
            if not isinstance(data.get("more"), int):
                fault = {"loc": ["more"], "msg": "Field required"}
                return _error("VALIDATION_ERROR", "Invalid message", errors=[fault])
            return {"type": "observation", "data": counter.step(data["more"])}
        seen = counter.step(data["arguments"]["more"])
        seen["observation"] = {"tool_name": "add", "result": {"data": seen["observation"]["text"], "content": []}}
        return {"type": "observation", "data": seen}
    except RuntimeError as error:
        return _error("EXECUTION_ERROR", str(error))


def _error(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "data": {"code": code, "message": message, **more}}
