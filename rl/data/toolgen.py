"""What ToolGen learns from: conversations in which some messages are learned and the others only read.

Three stages: a tool's documentation, then its token; a request, then the token of a tool that answers it; an attempt,
of which the policy's own messages are learned. Read from ToolGen's ShareGPT form or from the three files of its
reimplementations, or built from a catalog and queries.
"""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from executors.errors import DataError
from executors.foreign import ForeignTool
from executors.tools.describe import documentation
from rl.data.examples import Example, Row
from rl.data.tasks.funcqa import read_json
from rl.data.tasks.tool_requests import Query
from rl.models.load import end_id
from rollouts.formats.atomic import ACTION, AtomicFormat

_DOCUMENTATION = 300
"""Characters of it that are learned from."""
_JOINTS = re.compile(r"[_\-/]+|(?<=[a-z])(?=[A-Z])")
STAGES = {
    "memorisation": "tool_memorization.json",
    "retrieval": "retrieval_training.json",
    "agent": "agent_tuning.json",
}
"""The file of each stage."""


@dataclass(frozen=True, slots=True)
class Message:
    """One part of a conversation."""

    text: str
    learned: bool
    """Whether the policy says it, and learns to."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is read and said in turn."""

    id: str
    messages: tuple[Message, ...]


def memorised(tools: Iterable[ForeignTool], texts: Mapping[str, str]) -> list[Conversation]:
    """Each tool's documentation, and the text that stands for the tool."""
    return [
        Conversation(
            f"memorisation/{tool.spec.name}",
            (Message(f"{told(tool)}\n", False), Message(f"{ACTION}{texts[tool.spec.name]}", True)),
        )
        for tool in tools
    ]


def told(tool: ForeignTool) -> str:
    """A tool's documentation, cut where it is long.

    It is called what it is called where it comes from, in words, as requests are.
    """
    name, owner = spoken(tool.identity.raw), spoken(tool.identity.owner)
    called = f"Tool Name: {owner}. Api Name: {name}." if owner else f"Tool Name: {name}."
    about = documentation(tool.spec).removeprefix(tool.spec.name).removeprefix(":")
    return textwrap.shorten(f"{called} {about}", _DOCUMENTATION, placeholder=" ...")


def spoken(name: str) -> str:
    """A name as words: ``get_allBooks`` is get all Books."""
    return " ".join(_JOINTS.sub(" ", name).split())


def retrieved(queries: Iterable[Query], texts: Mapping[str, str], format: AtomicFormat) -> list[Conversation]:
    """Each request with each of its tools."""
    return [
        Conversation(
            f"retrieval/{query.id}/{place}",
            (Message(format.asked(query.text), False), Message(f"{ACTION}{texts[name]}", True)),
        )
        for query in queries
        for place, name in enumerate(query.wanted)
    ]


def read_sharegpt(path: Path) -> list[Conversation]:
    """ToolGen's rows: ``conversations`` of messages with ``role``, ``content`` and ``loss``.

    A message without ``loss`` is learned where the assistant says it.

    Raises:
        DataError: the file cannot be read, or a row is no such conversation.
    """
    found = []
    for number, row in enumerate(read_json(path)):
        try:
            messages = tuple(_message(message) for message in row["conversations"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}, item {number}: no conversation of role, content and loss: {error}") from error
        found.append(Conversation(f"{path.stem}/{number}", messages))
    return found


def _message(message: Mapping[str, Any]) -> Message:
    role = message.get("role") or message["from"]
    content = message.get("content", message.get("value"))
    if not isinstance(content, str):
        raise TypeError(f"the content of a message by {role} is {content!r}")
    assistant = role in ("assistant", "gpt")
    return Message(f"{content.strip()}\n", bool(message.get("loss", assistant)) and assistant)


def read_seed(folder: Path, stage: str, texts: Mapping[str, str] | None = None) -> list[Conversation]:
    """The file of one stage in the form that ToolGen's reimplementations write; none where there is no such file.

    ``tool_memorization.json`` has ``description`` and ``token``, ``retrieval_training.json`` ``query`` and
    ``relevant_tool_tokens``, ``agent_tuning.json`` ``query``, ``plan_sequence`` and ``final_answer``.

    Args:
        folder: of the files.
        stage: ``memorisation``, ``retrieval`` or ``agent``.
        texts: what stands here for a tool that they call so, by token or by name; others stay as they are written.

    Raises:
        DataError: a file cannot be read, or one of its rows lacks a key.
    """
    path = folder / STAGES[stage]
    if not path.is_file():
        return []
    found: list[Conversation] = []
    for number, row in enumerate(read_json(path)):
        try:
            found += seeded(stage, row, f"{stage}/{number}", texts)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}, item {number}: {error!r} is missing or of another type") from error
    return found


def seeded(stage: str, row: Mapping[str, Any], id: str, texts: Mapping[str, str] | None = None) -> list[Conversation]:
    """What one row of a stage's file teaches; KeyError or TypeError where it is of another form.

    A step of a plan may have ``documentation`` and ``observation`` beside the published keys; the policy reads them.
    """
    format = AtomicFormat()
    known: Mapping[str, str] = texts or {}
    if stage == "memorisation":
        token = known.get(row["token"], str(row["token"]))
        return [Conversation(id, (Message(f"{row['description']}\n", False), Message(ACTION + token, True)))]
    asked = Message(format.asked(row["query"]), False)
    if stage == "retrieval":
        tokens = [known.get(token, str(token)) for token in row["relevant_tool_tokens"]]
        return [Conversation(f"{id}/{n}", (asked, Message(ACTION + token, True))) for n, token in enumerate(tokens)]
    messages = [asked]
    for step in row["plan_sequence"]:
        given = step["action_input"]
        written = given if isinstance(given, str) else json.dumps(given)
        messages += [
            Message(f"{step['thought']}\n{ACTION}{known.get(step['action'], step['action'])}", True),
            Message(_before(step.get("documentation"), format.INPUT), False),
            Message(f"{written}\n", True),
            Message(
                f"{format.OBSERVATION}{said}\n" if (said := step.get("observation")) else format.OBSERVATION, False
            ),
        ]
    return [Conversation(id, (*messages, Message(format.write_answer(str(row["final_answer"])), True)))]


def _before(documentation: str | None, mark: str) -> str:
    """What stands before an input: the tool's documentation, where the file has it."""
    return f"\n{documentation}{mark}" if documentation else mark


def seed_tokens(folder: Path) -> list[str]:
    """Every tool token that the three files name, in order."""
    tokens: dict[str, None] = {}
    for stage, name in STAGES.items():
        for row in read_json(folder / name) if (folder / name).is_file() else []:
            tokens |= dict.fromkeys([row["token"]] if stage == "memorisation" else row.get("relevant_tool_tokens", ()))
    return list(tokens)


def seed_names(folder: Path) -> list[tuple[str, str]]:
    """Which tool each token of the three files stands for, as ``tool_mapping.json`` beside them says; else none.

    Raises:
        DataError: that file maps no names to tokens.
    """
    path = folder / "tool_mapping.json"
    if not path.is_file():
        return []
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
        return [(str(token), str(name)) for name, token in mapping.items()]
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} should be one object with a token for each tool's name: {error}") from error


def examples(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Conversations as a learner takes them, but those of which nothing is learned."""
    rows: list[Example] = []
    for conversation in conversations:
        first, *rest = conversation.messages
        begin: Any = tokenizer.bos_token_id
        prompt = [begin] if isinstance(begin, int) else []
        ids: list[int] = []
        mask: list[bool] = []
        for place, message in enumerate((first, *rest)):
            own = tokenizer.encode(message.text, add_special_tokens=False)
            if place == 0 and not message.learned:
                prompt += own
                continue
            ids += own
            mask += [message.learned] * len(own)
        ids.append(end_id(tokenizer))
        mask.append(conversation.messages[-1].learned)
        if any(mask):
            rows.append(Example(conversation.id, tuple(prompt), (Row(tuple(ids), tuple(mask), 1.0, True),)))
    return rows
