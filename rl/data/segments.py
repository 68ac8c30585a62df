"""ToolAlpaca's supervised rows: an attempt in segments, and which of them are learned.

Learned are thoughts, actions, inputs, the marker that ends a call, the last thought and the response; not the prompt,
and not what was observed. A row is ``[["text", ...], [false, true, ...]]``.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from executors.corpus.toolset import GET_DETAILS
from executors.errors import DataError
from executors.types import MalformedCall, ToolSpec
from rl.data.examples import Example, Row
from rl.data.tables import write_text, written
from rl.models.load import end_id
from rollouts.formats.toolalpaca import ToolAlpacaFormat
from rollouts.types import Episode, Task

MAX_STEPS = 5
_HINT = "\nHint: "


@dataclass(frozen=True, slots=True)
class Segments:
    """One attempt, in pieces of text that are learned or only read."""

    texts: tuple[str, ...]
    learned: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.learned):
            raise DataError(f"{len(self.texts)} segments have {len(self.learned)} marks; each has one")

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)

    def as_row(self) -> list[list[Any]]:
        """In the published form."""
        return [list(self.texts), list(self.learned)]

    def as_played(self) -> "Segments":
        """The same text, with the blank at a segment's end at the beginning of the next one.

        So a policy meets it when it plays: it reads up to a marker, and the blank is the first that it writes.
        """
        texts = list(self.texts)
        for place in range(len(texts) - 1):
            if texts[place].endswith(" "):
                texts[place], texts[place + 1] = texts[place][:-1], f" {texts[place + 1]}"
        return Segments(tuple(texts), self.learned)


def refusal(episode: Episode) -> str:
    """Why an attempt is not learned from; empty where it is. ToolAlpaca's own filter, and that it has an answer."""
    calls = episode.calls
    if not calls:
        return "no steps"
    if len(calls) > MAX_STEPS:
        return f"more than {MAX_STEPS} steps"
    if all(not isinstance(call, MalformedCall) and call.tool == GET_DETAILS for call in calls):
        return f"only {GET_DETAILS}"
    if episode.stop != "answer" or episode.answer is None:
        return "no answer"
    return ""


def segments(task: Task, episode: Episode, specs: Sequence[ToolSpec], format: ToolAlpacaFormat) -> Segments:
    """An attempt in ToolAlpaca's segments.

    Args:
        task: what was attempted; a hint in it is cut.
        episode: the attempt, which ``refusal`` lets pass.
        specs: the functions that the prompt names, ``getDetails`` first where it is one.
        format: in which the attempt was written.
    """
    asked = Task(id=task.id, prompt=task.prompt.partition(_HINT)[0], tools=task.tools)
    ordered = sorted(specs, key=lambda spec: spec.name != GET_DETAILS)
    texts, learned = [f"{format.opening(asked, ordered)} "], [False]
    for turn in episode.turns:
        said = turn.completion.text.removeprefix(" ")
        if not turn.calls:
            texts.append(said)
            learned.append(True)
            break
        for stop in format.stop:
            said = said.removesuffix(stop)
        texts += [f"{said}{format.stop[0]} ", f"{turn.observations[0].content}\n{format.speaker}Thought: "]
        learned += [True, False]
    return Segments(tuple(texts), tuple(learned))


def first_call(row: Segments, format: ToolAlpacaFormat) -> Segments:
    """The same attempt from the user's words to its first call, without the functions and the grammar before them."""
    opening, called, *_ = row.texts
    begins = opening.rindex(f"\n\n{format.question}") + 2
    return Segments((opening[begins:], called), row.learned[:2])


def example(id: str, row: Segments, tokenizer: PreTrainedTokenizerBase) -> Example:
    """A row as tokens for any tokenizer: each segment is encoded by itself, so that its mask is exact."""
    played = row.as_played()
    prompt, *rest = [tokenizer.encode(text, add_special_tokens=False) for text in played.texts]
    ids: list[int] = []
    mask: list[bool] = []
    for piece, learned in zip(rest, played.learned[1:], strict=True):
        ids += piece
        mask += [learned] * len(piece)
    ends = [*ids, end_id(tokenizer)]
    return Example(id, tuple(prompt), (Row(tuple(ends), (*mask, True), 1.0, True),))


def write_segments(path: Path, rows: Iterable[Segments]) -> None:
    """Write rows as ToolAlpaca's training file: one list.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_text(path, written([row.as_row() for row in rows]))


def read_segments(path: Path) -> list[Segments]:
    """The rows of ToolAlpaca's training file.

    Raises:
        DataError: the file cannot be read, or a row is none; with its number.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} is a list of rows, not {type(rows).__name__}")
    return [_row(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _row(row: Any, place: str) -> Segments:
    match row:
        case [list(texts), list(learned)] if (
            len(texts) == len(learned)
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(mark, bool) for mark in learned)
        ):
            return Segments(tuple(texts), tuple(learned))
    raise DataError(f"{place}: a row is [[texts], [true or false for each]], not {str(row)[:80]}")
