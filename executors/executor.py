"""Runs calls: the one place where a policy's words become effects."""

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from executors.catalog import Catalog
from executors.errors import ToolError, UnknownToolError
from executors.tool import Tool
from executors.types import MalformedCall, Observation, Status, ToolCall


class Executor:
    """Validates a call against its tool's schema, runs it, and returns what came back.

    It never raises for what a call does: an unknown tool, bad arguments, a failing or hanging tool are observations.
    """

    def __init__(self, catalog: Catalog, *, timeout: float = 10.0, max_chars: int = 2048) -> None:
        """
        Args:
            catalog: the tools that may be called.
            timeout: seconds after which a call that is not ``instant`` is given up.
            max_chars: length to which an observation is cut.
        """
        self.catalog = catalog
        self.timeout = timeout
        self.max_chars = max_chars
        self._validators = {tool.name: Draft202012Validator(dict(tool.spec.parameters)) for tool in catalog}

    def run(self, call: ToolCall | MalformedCall) -> Observation:
        """Run one call to its end. For use where no event loop is running."""
        return asyncio.run(self.arun(call))

    async def arun(self, call: ToolCall | MalformedCall) -> Observation:
        """Run one call; other calls go on meanwhile."""
        started = time.perf_counter()
        content, status = await self._outcome(call)
        if len(content) > self.max_chars:
            content = content[: self.max_chars] + f"... [cut, {len(content)} characters]"
        return Observation(content, status, time.perf_counter() - started)

    async def _outcome(self, call: ToolCall | MalformedCall) -> tuple[str, Status]:
        if isinstance(call, MalformedCall):
            return call.error, "bad_call"
        try:
            tool = self.catalog.get(call.tool)
        except UnknownToolError as error:
            return str(error), "bad_call"
        if problem := self.problem(call):
            return problem, "bad_call"
        try:
            return _as_text(await self._apply(tool, call.arguments)), "ok"
        except TimeoutError:
            return f"{call.tool} did not answer within {self.timeout:g} s", "timeout"
        except ToolError as error:
            return str(error), "tool_error"
        except Exception as error:
            return f"{type(error).__name__}: {error}", "tool_error"

    def problem(self, call: ToolCall) -> str | None:
        """Why a call's arguments break its tool's schema, in words that a policy can act on; None where they do not.

        Raises:
            UnknownToolError: there is no such tool.
        """
        self.catalog.get(call.tool)
        error = best_match(self._validators[call.tool].iter_errors(dict(call.arguments)))
        if not isinstance(error, ValidationError):
            return None
        where = "/".join(map(str, error.absolute_path))
        return f"bad arguments for {call.tool}{f' at {where!r}' if where else ''}: {error.message}"

    async def _apply(self, tool: Tool, arguments: Mapping[str, Any]) -> Any:
        if inspect.iscoroutinefunction(tool.function):
            return await asyncio.wait_for(tool.function(**arguments), self.timeout)
        if tool.instant:
            return tool.function(**arguments)
        return await asyncio.wait_for(_in_thread(tool, arguments), self.timeout)


async def _in_thread(tool: Tool, arguments: Mapping[str, Any]) -> Any:
    """Run a blocking tool in a daemon thread, so that one that hangs holds up neither the loop nor the exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = tool.function(**arguments)
        except StopIteration as error:
            failure = RuntimeError(f"StopIteration: {error}")
        except BaseException as error:
            failure = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        try:
            loop.call_soon_threadsafe(settle, value, failure)
        except RuntimeError:
            return  # the loop has closed: the call was given up long ago

    threading.Thread(target=work, name=f"tool-{tool.name}", daemon=True).start()
    return await future


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
