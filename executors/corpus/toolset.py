"""The tools of one API as ToolAlpaca's assistant has them: its functions, the user, and the date.

What a function gives back is a status, the answer, and after a failure a hint what to do about it.
"""

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from executors.catalog import Catalog
from executors.corpus.long_answers import SPEC, LongAnswers
from executors.endpoint import Model
from executors.errors import BadCallError, ToolError, TransientError
from executors.executor import Executor
from executors.openapi.real import RealApi
from executors.openapi.tools import Api
from executors.tool import Limits, Tool
from executors.tools.get_details import Conversation, ModelUser, ScriptedUser
from executors.types import Scene, ToolSpec

GET_DETAILS = "getDetails"
"""Asks the user."""
GET_DATE = "getCurrentDateTime"
MAX_CHARS = 3000
"""Characters of an observation."""
MAX_FAILURES = 3
"""Failures of one episode after which the assistant is told to come to an end."""

_AGAIN = Limits(retries=3, timeout=120.0)
_CHANGE = "Look at what went wrong, change the input, and try again."
_OTHER = "Call another function, or give the answer with what is known."
_END = "This has failed more than three times; give the final answer with what is known."


class Backend(Protocol):
    """What answers the calls of an API: a ``Simulation``, a model that plays it (``PlayedApi``), or ``RealApi``."""

    api: Api

    def open(self, scene: Scene) -> Any: ...

    def answer(self, world: Any, name: str, arguments: Mapping[str, Any], /) -> Any:
        """An ``Answer``, or a coroutine of one."""
        ...


@dataclass(slots=True)
class Talk:
    """One episode with an API: its world, and how often it said no."""

    world: Any
    failures: int = 0
    long: LongAnswers = field(default_factory=LongAnswers)


@dataclass(frozen=True, slots=True)
class Talks:
    """Opens a talk for each episode."""

    backend: Backend

    def open(self, scene: Scene) -> Talk:
        """A talk in a fresh world."""
        return Talk(self.backend.open(scene))


@dataclass(frozen=True, slots=True)
class _Function:
    """One operation, as a tool's function."""

    backend: Backend
    name: str
    keeps: bool
    """Whether an answer that is too long is put into a file."""

    async def __call__(self, talk: Talk, /, **arguments: Any) -> str:
        answer = self.backend.answer(talk.world, self.name, arguments)
        answer = await answer if inspect.isawaitable(answer) else answer
        try:
            said = answer.observed()
        except (ToolError, TransientError) as error:
            talk.failures += 1
            hint = _END if talk.failures > MAX_FAILURES else _OTHER if answer.status in (404, 405) else _CHANGE
            text = str(error)[: MAX_CHARS - len(hint) - 1]
            raise type(error)(f"{text} {hint}") from error
        return talk.long.keep(said, MAX_CHARS) if self.keeps and len(said) > MAX_CHARS else said


@dataclass(frozen=True, slots=True)
class _Retrieval:
    """Reads from the episode's files."""

    model: Model | None = None

    async def __call__(self, talk: Talk, /, **arguments: str) -> str:
        return await talk.long.read(arguments["file_path"].strip(), arguments["query"], self.model)


def toolset(
    backend: Backend,
    user: ScriptedUser | ModelUser | None = None,
    *,
    now: Callable[[], datetime] | None = None,
    retrieval: bool = False,
    reader: Model | None = None,
    beside: Sequence[Backend] = (),
) -> list[Tool]:
    """The tools of an assistant for one API.

    Args:
        backend: what answers in the API's place.
        user: who is asked for details; None leaves ``getDetails`` out.
        now: gives the date; None leaves ``getCurrentDateTime`` out.
        retrieval: whether answers that are too long are put into files, which ``retrievalDataFromFile`` reads.
        reader: the model that reads them; without one, the pieces that share a query's words are given.
        beside: other APIs, whose functions are there to be told apart from this one's: they stand among them, in an
            order that says nothing of whose they are. One with a name that an earlier API has is left out.
    """
    talks = Talks(backend)
    functions = {tool.name: tool for tool in _functions(backend, talks, retrieval)}
    for other in beside:
        functions = {tool.name: tool for tool in _functions(other, Talks(other), retrieval)} | functions
    names = sorted(functions) if beside else list(functions)
    if beside:
        random.Random(" ".join(names)).shuffle(names)
    tools = [*([] if user is None else [user_tool(user)]), *(functions[name] for name in names)]
    if retrieval:
        tools.append(Tool(SPEC, _Retrieval(reader), limits=_AGAIN, state=talks))
    return tools if now is None else [*tools, date_tool(now)]


def _functions(backend: Backend, talks: Talks, keeps: bool) -> list[Tool]:
    """The tools of an API's operations."""
    once = Limits(retries=0, timeout=120.0, idempotent=False)
    return [
        Tool(
            one.spec,
            _Function(backend, one.name, keeps),
            limits=_AGAIN if not isinstance(backend, RealApi) or backend.repeatable(one.name) else once,
            state=talks,
        )
        for one in backend.api.operations
    ]


def api_executor(backend: Backend, user: ScriptedUser | ModelUser | None = None, **options: Any) -> Executor:
    """Runs the calls to one API as the corpus does: values are coerced to their types, observations are cut.

    Args:
        backend: what answers in the API's place.
        user: who is asked for details.
        options: those of ``toolset``.
    """
    tools = toolset(backend, user, **options)
    return Executor(Catalog(tools), timeout=120.0, max_chars=MAX_CHARS, coerce=True)


def user_tool(user: ScriptedUser | ModelUser) -> Tool:
    """``getDetails``: asks the user, who has a talk of its own in each episode."""
    parameters = {
        "type": "object",
        "properties": {"Question": {"type": "string", "description": "What you need to know from the user"}},
        "required": ["Question"],
    }
    spec = ToolSpec(GET_DETAILS, "Ask the user for details that the request leaves out.", parameters)
    return Tool(spec, _ask, limits=Limits(retries=0, timeout=120.0), state=user)


def date_tool(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Tool:
    """``getCurrentDateTime``: the date and the time, to the second."""

    def today() -> str:
        return f"The current date and time is {now():%Y-%m-%d %H:%M:%S}."

    return Tool(ToolSpec(GET_DATE, "Get the current date and time."), today, instant=True)


async def _ask(talk: Conversation, /, **arguments: str) -> str:
    question = arguments["Question"].strip()
    if not question:
        raise BadCallError("the question is empty; say what you need to know")
    return await talk.answer(question)
