"""Demonstrations for a query, found among what was solved: learning in context; and the tools that a prompt lists."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from executors.retrieval import Index, text_of
from executors.types import ToolCall, ToolSpec
from rl.data.paraphrase import Solved
from rollouts.formats import Format
from rollouts.formats.prefaced import Prefaced
from rollouts.memory import shingles, similarity
from rollouts.types import Task

Encode = Callable[[Sequence[str]], np.ndarray]
"""[n, d] vectors of n texts: a sentence encoder."""
ToolList = Literal["oracle", "neighbours", "full"]
"""``oracle``: the expected tool among its neighbours; ``neighbours``: those that the query finds; ``full``: all."""

_PARTED = "---\n"


class Demonstrations:
    """Finds what was solved and is most like a query: by words (BM25), or by an encoder."""

    def __init__(self, solved: Sequence[Solved], *, encode: Encode | None = None, max_similarity: float = 0.95) -> None:
        """
        Args:
            solved: to choose from; of the same query the first counts.
            encode: makes vectors that are compared by their cosine; BM25 without.
            max_similarity: of two demonstrations of one prompt; what is nearer is left out.
        """
        self.solved = list({task.prompt: (task, attempt) for task, attempt in reversed(solved)}.values())[::-1]
        self._encode = encode
        self._max_similarity = max_similarity
        texts = [task.prompt for task, _ in self.solved]
        self._index = Index(texts) if encode is None else None
        self._vectors = None if encode is None or not texts else _unit(encode(texts))

    def search(self, query: str, k: int) -> list[Solved]:
        """The ``k`` that are most like a query, best first; the query itself is never among them."""
        found: list[Solved] = []
        for position in self._ranked(query, 4 * k + 1):
            task, attempt = self.solved[position]
            own = shingles(task.prompt)
            near = max((similarity(own, shingles(other.prompt)) for other, _ in found), default=0.0)
            if task.prompt != query and near <= self._max_similarity:
                found.append((task, attempt))
        return found[:k]

    def _ranked(self, query: str, count: int) -> list[int]:
        if self._index is not None:
            return [position for position, _ in self._index.search(query, count)]
        if self._vectors is None or self._encode is None:
            return []
        scores = self._vectors @ _unit(self._encode([query]))[0]
        return [int(position) for position in np.argsort(-scores, kind="stable")[:count]]


def with_demonstrations(
    format: Format, demonstrations: Demonstrations, k: int, aliases: Mapping[str, str] | None = None
) -> Prefaced:
    """A format whose prompt begins with demonstrations of its query, the most similar first, as STE has them.

    Args:
        format: how they, and the task, are written.
        demonstrations: to choose from.
        k: of one prompt.
        aliases: by task id, another name for the task's tool; see ``rl.data.explored.renamed``.
    """

    def preface(task: Task) -> str:
        told = []
        for one, attempt in demonstrations.search(task.prompt, k):
            text, call = attempt.turns[0].completion.text, attempt.calls[0] if attempt.calls else None
            if aliases and task.id in aliases and isinstance(call, ToolCall) and call.tool in task.tools:
                text = format.write_call(ToolCall(aliases[task.id], call.arguments), ())
            told.append(f"{format.opening(one, ())}{text.rstrip()}\n")
        return "".join(f"{text}{_PARTED}" for text in told)

    return Prefaced(format, preface)


class ToolLists:
    """Chooses the tools that a prompt lists."""

    def __init__(self, specs: Sequence[ToolSpec]) -> None:
        self._specs = list(specs)
        self._texts = [text_of(spec) for spec in specs]
        self._index = Index(self._texts)

    def names(
        self,
        task: Task,
        how: ToolList,
        count: int = 15,
        *,
        neighbours: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
    ) -> tuple[str, ...]:
        """The names for one task, in an order that does not give the expected one away.

        Args:
            task: its query, and for ``oracle`` its gold call.
            how: see ``ToolList``.
            count: of the tools.
            neighbours: by tool, those most like it, such as STE's own; found by description where there are none.
            seed: of the order.
        """
        everything = [spec.name for spec in self._specs]
        if how == "oracle" and task.gold is not None:
            gold = task.gold.tool
            near = (neighbours or {}).get(gold) or self._near(self._texts[everything.index(gold)], count)
            chosen = list(dict.fromkeys([gold, *near]))[:count]
        elif how == "neighbours":
            chosen = self._near(task.prompt, count)
        else:
            chosen = everything
        random.Random(f"tools/{seed}/{task.id}").shuffle(chosen)
        return tuple(chosen)

    def _near(self, text: str, count: int) -> list[str]:
        return [self._specs[position].name for position, _ in self._index.search(text, count)]


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)
