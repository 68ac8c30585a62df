"""Answers that are too long to show: put into a file of the episode's own, and read there by a question."""

import re
from dataclasses import dataclass, field

from executors.endpoint import Model, consult
from executors.errors import BadCallError
from executors.retrieval import Index
from executors.types import ToolSpec

RETRIEVAL = "retrievalDataFromFile"
"""Reads what a question asks for from an answer that was put into a file."""
MAX_READ = 40_000
"""Characters of a file that are looked at."""
_PIECE = 300
_PIECES = 6
_SPLIT = re.compile(r"(?<=[},.\n])")
_TASK = (
    "Below is what a web service answered, and a question. Write out what the answer says on the question, as it "
    "stands there, and nothing else. Where it says nothing on it, say so."
)

SPEC = ToolSpec(
    RETRIEVAL,
    "Read what you need from a file that holds a long answer.",
    {
        "type": "object",
        "properties": {
            "file_path": {"type": "string", "description": "The file that the answer was put into"},
            "query": {"type": "string", "description": "What you want to know from it"},
        },
        "required": ["file_path", "query"],
    },
)


@dataclass(slots=True)
class LongAnswers:
    """The files of one episode; they exist in memory alone."""

    files: dict[str, str] = field(default_factory=dict)

    def keep(self, text: str, shown: int) -> str:
        """Put an answer into a file, and say so with its beginning.

        Args:
            text: of the answer.
            shown: characters that may be said of it.
        """
        name = f"retrieval_{len(self.files) + 1}.txt"
        self.files[name] = text
        told = (
            f"The answer has {len(text)} characters and is in the file {name}. Call {RETRIEVAL} with this file_path "
            "and a query to read what you need. It begins: "
        )
        return told + text[: max(0, shown - len(told))]

    async def read(self, name: str, query: str, model: Model | None = None) -> str:
        """What a file says on a question: as a model writes it out, else the pieces that share its words.

        Raises:
            BadCallError: there is no such file.
        """
        if name not in self.files:
            there = ", ".join(self.files) or "none, since no answer was too long"
            raise BadCallError(f"there is no file {name!r}; there are: {there}")
        text = self.files[name][:MAX_READ]
        if model is not None:
            asked = f"The answer:\n{text}\n\nThe question: {query}"
            messages = [{"role": "system", "content": _TASK}, {"role": "user", "content": asked}]
            return (await consult(model, messages, temperature=0.0, max_tokens=800)).strip()
        pieces = _pieces(text)
        found = sorted(place for place, _ in Index(pieces).search(query, _PIECES))
        return "\n".join(pieces[place] for place in found) or f"The file says nothing on {query!r}."


def _pieces(text: str) -> list[str]:
    """A text in pieces of about the same length, cut where something ends."""
    pieces = [""]
    for part in _SPLIT.split(text):
        if pieces[-1] and len(pieces[-1]) + len(part) > _PIECE:
            pieces.append("")
        pieces[-1] += part
    return pieces
