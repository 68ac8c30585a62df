"""Texts in which tools' results are marked, and what a model is to predict there.

Published annotations count the tokens of a tokenizer. Here a result is found again in the text, as characters, and laid
over the tokens of whatever tokenizer reads it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from executors.catalog import Catalog
from executors.errors import DataError
from rollouts.formats.toolken import MATH, QUESTION
from rollouts.types import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKED = -100
"""The label of a token that is not learned."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tool's result stands in a text."""

    start: int
    end: int
    """Behind its last character."""
    tool: str


@dataclass(frozen=True, slots=True)
class Marked:
    """A text and the results in it, in order."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """A training question with its answer, as a prompt shows it: in words, and with the calls that lead to it."""

    question: str
    answer: str
    called: str
    """The answer with each result behind its call, ``<tool>(arguments)=``."""
    result: str
    """What the answer comes to."""
    tools: tuple[str, ...]
    """One a call, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedData:
    """What tool embeddings are learned from, and the tasks that they are tried on."""

    tools: tuple[str, ...]
    """By number: the row that a tool has in the head."""
    catalog: Catalog
    train: tuple[Marked, ...]
    validation: tuple[Marked, ...]
    tests: Mapping[str, tuple[Task, ...]]
    """By name of the test set."""
    rejected: tuple[str, ...] = ()
    """Annotations without a place in their text, and why."""
    tasks: tuple[Task, ...] = ()
    """Questions of the training texts, each with the tool that answers it as its gold call's."""
    demonstrations: tuple[str, ...] = ()
    """Training texts in which each result stands behind its call, ``<tool>(arguments)=``: what tool mode is shown."""
    template: str = MATH
    """How its questions are put, with ``[QUESTION]`` in it."""
    worked: tuple[Worked, ...] = ()
    """Training questions for prompts, whose calls come to what they say; KAMEL has them of all relations."""


@dataclass(frozen=True, slots=True)
class Targets:
    """A marked text as tokens: what the model reads, and what it is to say next at each of them."""

    ids: tuple[int, ...]
    """The begin token, the text and the end token."""
    labels: tuple[int, ...]
    """One fewer: at each token the id of the next one, ``vocabulary + n`` for the nth tool, or ``MASKED``."""

    @property
    def tools(self) -> int:
        """Places where a tool is to be called; they are those of the highest labels."""
        return sum(label >= 0 for label in self.labels)


def whole_places(text: str, piece: str, start: int = 0) -> list[int]:
    """Where a piece stands by itself: no part of a longer number or word."""
    before = r"(?<![\w.])(?<!\d,)" if piece[:1].isalnum() else ""
    after = r"(?!\w|\.\d|,\d{3})" if piece[-1:].isalnum() else ""
    pattern = re.compile(before + re.escape(piece) + after)
    return [match.start() for match in pattern.finditer(text, start)]


def last_place(text: str, piece: str, start: int = 0) -> int | None:
    """The last place of a piece: by itself, else as part of something longer, else in other capitals; None for none."""
    if not piece:
        return None
    if whole := whole_places(text, piece, start):
        return whole[-1]
    for where, what in ((text, piece), (text.lower(), piece.lower())):
        if len(where) == len(text) and (found := where.rfind(what, start)) >= 0:
            return found
    return None


def in_order(text: str, pieces: Sequence[str], start: int = 0) -> list[tuple[int, int]]:
    """The places of pieces that follow one another.

    Raises:
        DataError: one of them does not come after the one before it.
    """
    places = []
    for piece in pieces:
        found = text.find(piece, start)
        if found < 0:
            raise DataError(f"{piece!r} does not come after character {start} of {text[-60:]!r}")
        start = found + len(piece)
        places.append((found, start))
    return places


def with_calls(marked: Marked, arguments: Sequence[str]) -> str:
    """A marked text with the call of each result before it, ``<tool>(arguments)=``.

    Args:
        marked: the text.
        arguments: of each call, as written between its brackets.
    """
    text, end = "", 0
    for span, inside in zip(marked.spans, arguments, strict=True):
        text += f"{marked.text[end : span.start]}<{span.tool}>({inside})="
        end = span.start
    return text + marked.text[end:]


def worked_example(marked: Marked, arguments: Sequence[str], template: str) -> Worked | None:
    """A marked text as an example for prompts; None where it calls nothing or is no question with an answer.

    Args:
        marked: the text.
        arguments: of each call, as written between its brackets.
        template: how the text puts its question.
    """
    before, _, between = template.partition(QUESTION)
    question, found, answer = marked.text.removeprefix(before).partition(between)
    if not found or not marked.spans:
        return None
    last = marked.spans[-1]
    return Worked(
        question=question.strip(),
        answer=answer.strip(),
        called=with_calls(marked, arguments).partition(between)[2].strip(),
        result=answer.rpartition("####")[2].strip() if "####" in answer else marked.text[last.start : last.end],
        tools=tuple(span.tool for span in marked.spans),
    )


def targets(
    marked: Marked, tokenizer: "PreTrainedTokenizerBase", tools: Mapping[str, int], *, only_tools: bool = False
) -> Targets:
    """What a model with a tool head is to predict at each token of a marked text.

    The first token of a result becomes the tool; its further tokens are masked; every other one stays what it is.

    Args:
        marked: the text; what stands in it as results is read as text.
        tokenizer: the model's; it has to say which characters a token stands for.
        tools: the number of each.
        only_tools: mask all that is no tool (ToolkenGPT's ``only_functoken``).

    Raises:
        DataError: the tokenizer cannot say that, or a marked tool has no number.
    """
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} does not tell tokens' characters; use the fast form of it")
    if strange := {span.tool for span in marked.spans} - tools.keys():
        raise DataError(f"no tool is called {min(strange)!r}; there are {', '.join(list(tools)[:5])} ...")
    encoded = tokenizer(marked.text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = list(encoded["input_ids"])
    labels = list(ids)
    vocabulary = len(tokenizer)
    places = iter(enumerate(encoded["offset_mapping"]))
    index, (first, last) = next(places, (0, (0, 0)))
    for span in marked.spans:
        label = vocabulary + tools[span.tool]
        while last <= span.start and index < len(ids) - 1:
            index, (first, last) = next(places)
        while first < span.end:
            labels[index] = label
            label = MASKED
            if index == len(ids) - 1:
                break
            index, (first, last) = next(places)
    if only_tools:
        labels = [label if label >= vocabulary else MASKED for label in labels]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    front = [begin] if isinstance(begin, int) else []
    back = [end] if isinstance(end, int) else []
    ending = [MASKED if only_tools else end for end in back]
    following = labels + ending if front else labels[1:] + ending
    return Targets((*front, *ids, *back), tuple(following))
