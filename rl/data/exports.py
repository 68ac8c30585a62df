"""Ranked groups in the formats of other projects; docs/data.md says what each keeps and what it loses."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from datasets import Features, Json, List, Value

from executors.errors import ConfigError
from rewards.types import Candidate, RankedGroup
from rl.data.atif import trajectory
from rl.data.conversations import Message, Setting, conversation, prompt, status, transcript
from rl.data.questions import SKYRL, VERL, ground_truth, skyrl_row, verl_row
from rl.data.ranked import FEATURES, ranked_row
from rl.data.rounds import RoundGroup
from rl.data.rows import Row
from rl.data.searches import Form, converted, searched_attempt
from rl.data.tables import write_rows, written
from rl.data.trees import Searched
from rl.data.ways import Kept, kept_ways
from rl.run import write_json
from rollouts.types import Task

ExportFormat = Literal[
    "sft", "prompt_completion", "preference", "ranked", "rrhf", "verl", "skyrl", "atif", "answers", "agent", "sharegpt"
]
SEARCHED: tuple[Form, ...] = get_args(Form)
"""Formats of ToolBench's and ToolGen's, one JSON file each, which ``export_searches`` writes of trees too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How groups are written."""

    pairs: str = "extremes"
    """Of ``preference``: ``extremes`` sets the best against the worst candidate, ``all`` makes every pair."""
    margin: float = 0.0
    """Of ``preference``: pairs whose rewards differ by no more than this are left out."""
    text: bool = False
    """Of ``prompt_completion`` and ``preference``: the very text of the run's format instead of messages."""
    env_class: str = "apprentice"
    """Of ``skyrl``: the environment that its trainer makes."""
    split: str = "train"
    """Of ``verl`` and ``skyrl``: what the rows say of themselves."""
    kept: Kept = Kept()
    """Of ``agent`` and ``sharegpt``: the ways that are written."""

    def __post_init__(self) -> None:
        if self.pairs not in ("extremes", "all"):
            raise ConfigError(f"pairs are made of the 'extremes' or of 'all' candidates, not of {self.pairs!r}")
        if not self.margin >= 0:
            raise ConfigError(f"margin must be 0 or more, got {self.margin}")


@dataclass(slots=True)
class Exported:
    """What became of the groups of an export."""

    groups: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Groups that gave no row, by the reason."""


def export(
    groups: Iterable[RoundGroup], setting: Setting, format: str, path: Path, options: ExportOptions = ExportOptions()
) -> Exported:
    """Write ranked groups to a file.

    Args:
        groups: in the order that rows come in.
        setting: where they were played.
        format: one of ``ExportFormat``.
        path: ends in ``.jsonl`` or ``.parquet``. ``atif`` is written to a folder, a file for each attempt, or to a
            file that ends in ``.jsonl``; ``answers``, ``agent`` and ``sharegpt`` to one that ends in ``.json``.
        options: see ``ExportOptions``.

    Raises:
        ConfigError: there is no such format, its name does not suit the file, or the file cannot be written.
        DataError: a group holds what JSON cannot say.
    """
    if format not in get_args(ExportFormat):
        there = ", ".join(get_args(ExportFormat))
        raise ConfigError(
            f"no format {format!r} to export to; there are {there}, and of a run's policy model and adapter"
        )
    exported = Exported()
    if format in SEARCHED:
        return export_searches(dict(best_attempts(groups, setting, exported)), format, path, options.kept, exported)
    if format in ("verl", "skyrl"):
        rows = _questions(groups, setting, format, options, exported)
    else:
        rows = _attempts(groups, setting, format, options, exported)
    if format == "atif" and path.suffix == "":
        _write_folder(path, rows)
    elif format == "atif" and path.suffix != ".jsonl":
        raise ConfigError(f"trajectories go to a folder, or to a file that ends in .jsonl, not to {path}")
    else:
        write_rows(path, rows, features(format, text=options.text))
    return exported


def export_searches(
    made: Mapping[str, Searched],
    format: str,
    path: Path,
    kept: Kept = Kept(),
    exported: Exported | None = None,
) -> Exported:
    """Write searches, or attempts as chains, as ToolBench's evaluation or ToolGen's last stage reads them.

    Args:
        made: by the query's id.
        format: one of ``SEARCHED``.
        path: ends in ``.json``.
        kept: of ``agent`` and ``sharegpt``, the ways that are written.
        exported: what is known of them; each is a group by default.

    Raises:
        ConfigError: there is no such format, or the file cannot be written.
    """
    if format not in SEARCHED:
        raise ConfigError(f"trees are exported to {', '.join(SEARCHED)}, not to {format!r}")
    if path.suffix != ".json":
        raise ConfigError(f"{format} goes to a file that ends in .json, not to {path}")
    exported = exported or Exported(groups=len(made))
    content = converted(made, format, kept)
    exported.rows = len(content)
    if format != "answers" and (without := sum(not kept_ways(one, kept) for one in made.values())):
        exported.left_out["no way that is learned from"] += without
    try:
        write_json(path, content)
    except OSError as error:
        raise ConfigError(f"cannot write to {path}: {error.strerror or error}") from error
    return exported


def best_attempts(groups: Iterable[RoundGroup], setting: Setting, exported: Exported) -> Iterator[tuple[str, Searched]]:
    """The best attempt of each group as a search of one way, by its task's id.

    Args:
        groups: ranked; a task may come again.
        setting: where they were played.
        exported: counts them, and those without an attempt.
    """
    for record in groups:
        exported.groups += 1
        if not record.group.candidates:
            exported.left_out["no candidate"] += 1
            continue
        task, best = record.group.task, record.group.candidates[0].episode
        yield task.id, searched_attempt(task, best, setting.format, setting.specs(task))


def features(format: str, *, text: bool = False) -> Features:
    """The columns of a format's Parquet files; ``load_dataset("json", features=...)`` takes them too."""
    messages = Value("string") if text else List(Json())
    tools = {} if text else {"tools": List(Json())}
    about = {"id": Value("string"), **_JUDGED}
    pair = {f"{name}_{side}": type for side in ("chosen", "rejected") for name, type in _JUDGED.items()}
    columns: dict[str, Features] = {
        "sft": Features({"messages": List(Json()), "tools": List(Json()), **about}),
        "prompt_completion": Features({"prompt": messages, **tools, "completion": messages, **about}),
        "preference": Features(
            {"prompt": messages, **tools, "chosen": messages, "rejected": messages, "id": Value("string"), **pair}
        ),
        "ranked": FEATURES,
        "rrhf": Features({"query": Value("string"), **{name: List(type) for name, type in _RRHF.items()}}),
        "verl": VERL,
        "skyrl": SKYRL,
    }
    return columns.get(format, Features({}))


_JUDGED = {"source": Value("string"), "score": Value("float64"), "status": Value("string")}
_RRHF = {
    "responses": Value("string"),
    "scores": Value("float64"),
    "origin": Value("string"),
    "answer": Value("string"),
}


def _attempts(
    groups: Iterable[RoundGroup], setting: Setting, format: str, options: ExportOptions, exported: Exported
) -> Iterator[Row]:
    """The rows of formats that are made of candidates."""
    for record in groups:
        exported.groups += 1
        before = exported.rows
        for row in _rows(record, setting, format, options):
            exported.rows += 1
            yield row
        if exported.rows == before:
            tied = bool(record.group.candidates)
            exported.left_out["no two rewards differ enough" if tied else "no candidate"] += 1


def _rows(record: RoundGroup, setting: Setting, format: str, options: ExportOptions) -> Iterator[Row]:
    group = record.group
    if format == "ranked":
        yield ranked_row(group, setting, round=record.round, version=record.version)
    elif format == "atif":
        for number, candidate in enumerate(group.candidates):
            yield trajectory(group.task, candidate, setting, number)
    elif format == "preference":
        for chosen, rejected in _pairs(group, options):
            yield _preference(group.task, chosen, rejected, setting, options)
    elif group.candidates:
        best = group.candidates[0]
        if format == "rrhf":
            yield _rrhf(group, setting)
        elif format == "sft":
            yield _sft(group.task, best, setting)
        else:
            yield {
                **_asked(group.task, setting, options),
                "completion": _answered(group.task, best, setting, options),
                **_about(group.task, best),
            }


def _questions(
    groups: Iterable[RoundGroup], setting: Setting, format: str, options: ExportOptions, exported: Exported
) -> Iterator[Row]:
    """The rows of formats that are made of tasks: each task once, and only where something is expected of it."""
    seen: set[str] = set()
    for record in groups:
        exported.groups += 1
        task = record.group.task
        if task.id in seen:
            exported.left_out["its task is there already"] += 1
        elif ground_truth(task) is None:
            exported.left_out["no answer is expected"] += 1
        else:
            exported.rows += 1
            index = len(seen)
            yield (
                verl_row(task, index, setting, split=options.split)
                if format == "verl"
                else skyrl_row(task, index, setting, split=options.split, env_class=options.env_class)
            )
            seen.add(task.id)


def _pairs(group: RankedGroup, options: ExportOptions) -> Iterator[tuple[Candidate, Candidate]]:
    """The pairs whose rewards differ by more than the margin, the better one first."""
    ranked = group.candidates
    if options.pairs == "extremes":
        pairs = [(ranked[0], ranked[-1])] if ranked else []
    else:
        pairs = [(better, worse) for place, better in enumerate(ranked) for worse in ranked[place + 1 :]]
    for better, worse in pairs:
        if better.reward.value - worse.reward.value > options.margin:
            yield better, worse


def _sft(task: Task, best: Candidate, setting: Setting) -> Row:
    messages = [*prompt(task, setting.format), *conversation(best.episode, setting.format, setting.specs(task))]
    return {"messages": messages, "tools": setting.tools(task), **_about(task, best)}


def _preference(task: Task, chosen: Candidate, rejected: Candidate, setting: Setting, options: ExportOptions) -> Row:
    row = {
        **_asked(task, setting, options),
        "chosen": _answered(task, chosen, setting, options),
        "rejected": _answered(task, rejected, setting, options),
        "id": task.id,
    }
    for side, candidate in (("chosen", chosen), ("rejected", rejected)):
        row |= {f"{name}_{side}": value for name, value in _judged(candidate).items()}
    return row


def _rrhf(group: RankedGroup, setting: Setting) -> Row:
    return {
        "query": setting.format.opening(group.task, setting.specs(group.task)),
        "responses": [transcript(candidate.episode, setting.format) for candidate in group.candidates],
        "scores": [candidate.reward.value for candidate in group.candidates],
        "origin": [candidate.episode.source for candidate in group.candidates],
        "answer": [candidate.episode.answer for candidate in group.candidates],
    }


def _asked(task: Task, setting: Setting, options: ExportOptions) -> Row:
    if options.text:
        return {"prompt": setting.format.opening(task, setting.specs(task))}
    return {"prompt": prompt(task, setting.format), "tools": setting.tools(task)}


def _answered(task: Task, candidate: Candidate, setting: Setting, options: ExportOptions) -> str | list[Message]:
    if options.text:
        return transcript(candidate.episode, setting.format)
    return conversation(candidate.episode, setting.format, setting.specs(task))


def _about(task: Task, candidate: Candidate) -> Row:
    return {"id": task.id, **_judged(candidate)}


def _judged(candidate: Candidate) -> Row:
    return {
        "source": candidate.episode.source,
        "score": candidate.reward.value,
        "status": status(candidate.episode),
    }


def _write_folder(path: Path, rows: Iterable[Row]) -> None:
    """Each trajectory as a file of its own, named by its number and its id."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(rows):
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", row["trajectory_id"])
            (path / f"{number:06d}-{name[:200]}.json").write_text(written(row) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {path}: {error.strerror or error}") from error
