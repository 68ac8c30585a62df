"""Who says that free-text arguments are correct: labels that were given before, a model that is asked, or no one."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from executors.endpoint import Model
from executors.errors import DataError
from executors.types import ToolCall, ToolSpec
from rl.evaluation.suites.ste_predictions import Prediction, read_predictions
from rollouts.formats.react import ReactFormat

_PAPER = ReactFormat(parser="paper", ground=True)
_INSTRUCTION = (
    "Two calls of the same API follow: the expected one, and one that a program made. Decide whether the second is as "
    "good as the first: its arguments mean the same, and no important detail of the expected ones is missing. Begin "
    "your answer with Yes. or No., then say why in one sentence."
)
_AT_ONCE = 16
"""Questions that a model is asked at the same time."""

Triple = tuple[str, str, str]
"""API, query and arguments, normalised: what a label is of."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A call of the right API, and what was expected."""

    item: Prediction
    call: ToolCall
    gold: Mapping[str, Any]


class Judge(Protocol):
    """Says whether arguments that need not read the same are correct."""

    counts: Counter[str]
    """How it came to its verdicts, such as ``own`` for labels of the file itself."""

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """One for each pair; None where it does not know, and the string rule decides."""
        ...


class CachedJudge:
    """Looks verdicts up: an item's own, then the one that the same arguments were given before."""

    def __init__(self, labels: Mapping[Triple, bool]) -> None:
        """
        Args:
            labels: of arguments that were judged before.
        """
        self._labels = labels
        self.counts: Counter[str] = Counter()

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """Labels that were given to these very arguments: ``own``, from ``elsewhere``, or ``unknown``."""
        return [self._verdict(pair) for pair in pairs]

    def _verdict(self, pair: Pair) -> bool | None:
        own = pair.item.label
        labelled = None if own is None else labelled_arguments(pair.item)
        if own is not None and (labelled is None or labelled == pair.call.arguments):
            self.counts["own"] += 1
            return own
        label = self._labels.get(triple(pair.item, pair.call.arguments))
        self.counts["unknown" if label is None else "elsewhere"] += 1
        return label


class ModelJudge:
    """Asks a model at temperature 0, as STE does; about the same pair of calls once only.

    Its answers may be kept in a file, so that an evaluation that stopped goes on where it was.
    """

    def __init__(self, model: Model, kept: Path | None = None, *, max_tokens: int = 256) -> None:
        """
        Args:
            model: answers a chat.
            kept: JSON lines of what it said; None keeps nothing.
            max_tokens: of an answer.

        Raises:
            DataError: the file holds something else.
        """
        self._model = model
        self._kept = kept
        self._max_tokens = max_tokens
        self._said = {} if kept is None else _read_said(kept)
        self.counts: Counter[str] = Counter()

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """What the model says, ``asked`` now or ``kept`` from before; all that has no ``No.`` is a yes, as published.

        Raises:
            ApprenticeError: the model cannot be reached; what it said before that is kept.
        """
        prompts = [judge_prompt(pair.item.api, pair.gold, pair.call.arguments) for pair in pairs]
        fresh = [prompt for prompt in dict.fromkeys(prompts) if _key(prompt) not in self._said]
        self.counts += Counter(asked=len(fresh), kept=len(prompts) - len(fresh))
        asyncio.run(self._ask(fresh))
        return ["No." not in self._said[_key(prompt)] for prompt in prompts]

    async def _ask(self, prompts: Sequence[str]) -> None:
        room = asyncio.Semaphore(_AT_ONCE)

        async def ask(prompt: str) -> None:
            async with room:
                messages = [{"role": "user", "content": prompt}]
                self._keep(prompt, await self._model(messages, temperature=0.0, max_tokens=self._max_tokens))

        try:
            await asyncio.gather(*map(ask, prompts))
        finally:
            if close := getattr(self._model, "close", None):
                await close()

    def _keep(self, prompt: str, said: str) -> None:
        self._said[_key(prompt)] = said
        if self._kept is not None:
            with self._kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"pair": _key(prompt), "said": said}, ensure_ascii=False) + "\n")


class StrictJudge:
    """Leaves it to the string rule: no label and no model."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def verdicts(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """None is known."""
        return [None] * len(pairs)


def judge_prompt(api: str, gold: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """What a judge is asked: it sees both calls, and not the query."""
    expected, given = (json.dumps(dict(one), ensure_ascii=False) for one in (gold, made))
    return f"{_INSTRUCTION}\n\nAPI: {api}\nExpected arguments: {expected}\nArguments of the program: {given}"


def triple(item: Prediction, arguments: Mapping[str, Any]) -> Triple:
    """What a label is found by."""
    told = {key: str(value).strip().lower() for key, value in arguments.items()}
    return item.api, item.query, json.dumps(told, sort_keys=True, ensure_ascii=False)


def labelled_arguments(item: Prediction) -> Mapping[str, Any] | None:
    """The arguments that an item's label is of: those that the published parser reads; None where it reads none."""
    calls = _PAPER.parse(item.output, (ToolSpec(item.api, ""),)) if item.stored is None else item.stored
    return calls[0].arguments if calls and isinstance(calls[0], ToolCall) else None


def published_labels(folder: Path) -> dict[Triple, bool]:
    """The labels of every prediction file in a folder, such as STE's ``saved_results``; of two, the first.

    Raises:
        DataError: a file cannot be read.
    """
    return labels_of(item for path in sorted(folder.glob("*.json")) for item in read_predictions(path).items)


def labels_of(items: Iterable[Prediction]) -> dict[Triple, bool]:
    """By call, the label that was given to it first."""
    labels: dict[Triple, bool] = {}
    for item in items:
        if item.label is not None and (arguments := labelled_arguments(item)) is not None:
            labels.setdefault(triple(item, arguments), item.label)
    return labels


def _key(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()


def _read_said(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    said: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            said[record["pair"]] = record["said"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number} is no kept verdict ({error}); name another file, or remove it") from error
    return said
