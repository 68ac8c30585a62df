"""STE's evaluation: whether a reply makes a well-formed call, of the right API, with the right arguments.

A reply that finishes without a call is not well-formed, and is counted apart (``no_call``) from one that cannot be read
(``err``). Arguments are looked at where the API is right: as strings, or by a judge where they are free text.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from executors.types import MalformedCall, ToolCall, ToolSpec
from rewards.arguments import ExtraKeys, same_arguments
from rl.evaluation.intervals import Ratio, figures
from rl.evaluation.suites.ste_golds import EDITED, JUDGED, SUSPECT, digest
from rl.evaluation.suites.ste_labels import Judge, Pair
from rl.evaluation.suites.ste_predictions import Prediction, Predictions
from rollouts.formats.react import Parser, ReactFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class SteSetting:
    """How replies are read and compared; as published by default."""

    parser: Parser = "paper"
    """``fair`` forgives trailing commas, and an observation that the model went on to invent."""
    ground: bool = True
    """Take the nearest API where a reply names none. Without it, an unknown name is an error to the published parser,
    and a well-formed call of a wrong API to the fair one."""
    extra_keys: ExtraKeys = "ignore"
    """Whether arguments that were not expected pass the string rule."""
    edited_golds: bool = True
    """Score the 11 items whose expected call was edited after scoring with the one from before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What one reply was found to be; as STE's files flag it."""

    item: Prediction
    no_call: bool = False
    err: bool = False
    api_match: bool = False
    args_correct: bool = False
    call: ToolCall | None = None
    """What was read; None where there is no well-formed call."""

    @property
    def wellformed(self) -> bool:
        return self.call is not None


def score(predictions: Predictions, setting: SteSetting, judge: Judge) -> list[Flags]:
    """Flag every item of a file, in its order.

    Args:
        predictions: of one file; its APIs are the names that a reply may call.
        setting: how replies are read and compared.
        judge: of free-text arguments.
    """
    return compare(read_replies(predictions, setting), setting, judge)


def read_replies(predictions: Predictions, setting: SteSetting) -> list[Flags]:
    """What each reply calls, its arguments not looked at yet."""
    format = ReactFormat(parser=setting.parser, ground=setting.ground)
    specs = tuple(ToolSpec(name, "") for name in predictions.apis)
    return [_read(item, format, specs) for item in predictions.items]


def compare(read: Sequence[Flags], setting: SteSetting, judge: Judge) -> list[Flags]:
    """The same flags, with the arguments of every call of the right API found correct or not."""
    pairs = {
        index: Pair(flags.item, flags.call, gold)
        for index, flags in enumerate(read)
        if flags.api_match and flags.call is not None and (gold := expected(flags.item, setting)) is not None
    }
    judged = [index for index, pair in pairs.items() if pair.item.api in JUDGED]
    verdicts = dict(zip(judged, judge.verdicts([pairs[index] for index in judged]), strict=True))
    return [_settled(flags, pairs.get(index), verdicts.get(index), setting) for index, flags in enumerate(read)]


def expected(item: Prediction, setting: SteSetting) -> Mapping[str, Any] | None:
    """The arguments that an item expects; None where none are correct."""
    edit = EDITED.get((item.api, digest(item.query))) if setting.edited_golds else None
    return item.gold if edit is None or item.gold is None else edit.before(item.gold)


def _read(item: Prediction, format: ReactFormat, specs: Sequence[ToolSpec]) -> Flags:
    calls = format.parse(item.output, specs) if item.stored is None else item.stored
    if not calls:
        return Flags(item=item, no_call=True)
    call = calls[0]
    if isinstance(call, MalformedCall):
        return Flags(item=item, err=True)
    return Flags(item=item, call=call, api_match=call.tool == item.api)


def _settled(flags: Flags, pair: Pair | None, verdict: bool | None, setting: SteSetting) -> Flags:
    if pair is None:
        return flags
    correct = same_arguments(pair.call.arguments, pair.gold, setting.extra_keys) if verdict is None else verdict
    return Flags(item=flags.item, call=flags.call, api_match=True, args_correct=correct)


def totals(flags: Sequence[Flags]) -> dict[str, float]:
    """The counts, and STE's three figures in percent; 0 of nothing is 0.

    Well-formed and correct are shares of all items, API match is a share of the well-formed ones.
    """
    counts = {name: sum(getattr(one, name) for one in flags) for name in _COUNTS}
    wellformed = len(flags) - counts["no_call"] - counts["err"]
    return {
        "n": len(flags),
        **counts,
        "wellformed": _percent(wellformed, len(flags)),
        "api_match_rate": _percent(counts["api_match"], wellformed),
        "correct": _percent(counts["args_correct"], len(flags)),
    }


_COUNTS = ("no_call", "err", "api_match", "args_correct")


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def by_api(flags: Sequence[Flags]) -> dict[str, dict[str, float]]:
    """The figures of each API, in the order of the file."""
    return _grouped(flags, lambda one: one.item.api)


def by_batch(flags: Sequence[Flags], batches: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    """The figures of each batch of APIs that the file has items of, as in continual learning.

    Args:
        flags: of one file.
        batches: the APIs of each.
    """
    home = {api: str(number) for number, batch in enumerate(batches) for api in batch}
    grouped = _grouped(flags, lambda one: home.get(one.item.api, "none"))
    return {name: grouped[name] for name in sorted(grouped)}


def without_suspects(flags: Iterable[Flags]) -> dict[str, float]:
    """The figures without the items whose expected call was edited, or looks as if it was."""
    return totals([one for one in flags if (one.item.api, digest(one.item.query)) not in SUSPECT])


def shares(flags: Sequence[Flags]) -> dict[str, Ratio]:
    """STE's three figures as ratios over the items."""
    correct = [float(one.args_correct) for one in flags]
    wellformed = [float(one.wellformed) for one in flags]
    matched = [float(one.api_match) for one in flags]
    return {
        "wellformed": Ratio(wellformed),
        "api_match_rate": Ratio(matched, wellformed),
        "correct": Ratio(correct),
    }


def report(
    flags: Sequence[Flags], setting: SteSetting, judge: Judge, notes: Sequence[str], batches: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Everything that is known of a file's predictions, as JSON says it.

    Args:
        flags: of its items.
        setting: how they were read and compared.
        judge: who judged free text.
        notes: on odd rows.
        batches: of APIs, for the table of continual learning; none leaves it out.
    """
    settings = {name: getattr(setting, name) for name in ("parser", "ground", "extra_keys", "edited_golds")}
    return {
        "totals": totals(flags),
        "intervals": {name: figure.as_json() for name, figure in figures(shares(flags)).items()},
        "without_suspects": without_suspects(flags),
        "setting": settings,
        "free_text_verdicts": dict(judge.counts),
        "batches": by_batch(flags, batches) if batches else {},
        "apis": by_api(flags),
        "notes": list(notes),
    }


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Figures as text, a row for each name."""
    width = max(map(len, rows))
    lines = [f"{'':<{width}}     n  no_call  err   wellformed  API match    correct"]
    for name, one in rows.items():
        shown = "  ".join(f"{one[key]:9.3f}" for key in ("wellformed", "api_match_rate", "correct"))
        lines.append(f"{name:<{width}} {one['n']:5.0f} {one['no_call']:8.0f} {one['err']:4.0f}    {shown}")
    return "\n".join(lines)


def _grouped(flags: Sequence[Flags], key: Callable[[Flags], str]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Flags]] = {}
    for one in flags:
        groups.setdefault(key(one), []).append(one)
    return {name: totals(members) for name, members in groups.items()}
