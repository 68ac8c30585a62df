"""ToolAlpaca's evaluation, recounted from the verdicts of its judge; and how far a rule agrees with that judge.

An attempt's process is right, or its final response is, where the judge says Yes; overall where it says so of both.
Attempts that came to nothing were not shown to the judge: they are errors, and count as wrong.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from executors.errors import DataError
from rewards.process import LEVELS, Instruction, Level, process_correct
from rl.evaluation.suites.toolalpaca_prompts import JudgePrompt, read_prompt

Verdict = Literal["Yes", "No", "Uncertain", "none"]
"""``none``: the judge said nothing that could be read."""

_SHAPE = (
    'a judged file maps each API to its rows, {"API": [{"input": [{"content"}], "output"}, ...], "statistics": ...}'
)
_KEYS = {"input", "output", "process_correctness", "final_response_correctness"}
"""Of a row; a file in whose rows there is none of them is of another kind."""
_RESULTS = "## Results"
_PROCESS = re.compile(r"Process Correctness: *(\w+)")
_RESPONSE = re.compile(r"Final Response Correctness: *(\w+)")
_SECRET = re.compile(r"api_?key|access_?(key|token)|token|secret|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One attempt and what the judge said of it."""

    api: str
    place: int
    """Among the rows of its API, from 0."""
    process: Verdict
    response: Verdict
    error: bool
    """Whether there was nothing to judge."""
    prompt: JudgePrompt | None
    """What the judge was shown; None where there was nothing, or it cannot be read."""


@dataclass(frozen=True, slots=True)
class JudgedFile:
    """The attempts of one file."""

    rows: tuple[Judged, ...]
    notes: tuple[str, ...] = ()
    """What is odd about some rows, and what was made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often a rule and the judge say the same of the process."""

    level: Level
    n: int
    yes: int
    """How often the rule says that it is right."""
    agreement: float
    kappa: float
    """Agreement beyond chance (Cohen); 0 where both always say the same one thing."""

    def as_json(self) -> dict[str, Any]:
        return {"agreement": round(self.agreement, 4), "kappa": round(self.kappa, 4), "yes": self.yes, "n": self.n}


def read_judged(path: Path) -> JudgedFile:
    """A file of ToolAlpaca's judge: rows by API and ``statistics``, or one list of rows.

    Raises:
        DataError: the file is not there, is not JSON, has another form, or has no row.
    """
    content = _loaded(path)
    groups = {"": content} if isinstance(content, list) else content
    if not isinstance(groups, Mapping):
        raise DataError(f"{path} holds a JSON {type(content).__name__}; {_SHAPE}")
    notes: list[str] = []
    rows = [
        row for api, records in groups.items() if api != "statistics" for row in _rows(str(api), records, path, notes)
    ]
    told = [row for records in groups.values() if isinstance(records, list) for row in records]
    if not any(isinstance(row, Mapping) and row.keys() & _KEYS for row in told):
        raise DataError(f"{path} has no judged attempt; {_SHAPE}")
    return JudgedFile(tuple(rows), (*notes, *_against(groups.get("statistics"), rows)))


def recount(judged: JudgedFile) -> dict[str, float]:
    """ToolAlpaca's ``procedure``, ``response`` and ``overall``, in percent of all attempts; ``errors`` and ``n``."""
    rows = judged.rows
    process = [row.process == "Yes" for row in rows]
    response = [row.response == "Yes" for row in rows]
    both = [left and right for left, right in zip(process, response, strict=True)]
    figures = {"procedure": process, "response": response, "overall": both}
    shares = {name: 100 * sum(yes) / len(rows) for name, yes in figures.items()}
    return {**shares, "errors": sum(row.error for row in rows), "n": len(rows)}


def agreement(judged: JudgedFile, level: Level, *, compare_secrets: bool = True) -> Agreement:
    """How far the rule of one level agrees with the judge on the attempts that both can judge.

    Args:
        judged: attempts with verdicts; ``Uncertain`` is not Yes.
        level: of the rule.
        compare_secrets: whether keys and tokens have to be the expected ones. Published figures compare them, though an
            attempt has no way to know some of them.
    """
    pairs = [
        (_by_rule(row.prompt, level, compare_secrets), row.process == "Yes")
        for row in judged.rows
        if row.prompt is not None and row.process != "none"
    ]
    n = len(pairs)
    if not n:
        return Agreement(level=level, n=0, yes=0, agreement=0.0, kappa=0.0)
    ours, theirs = (sum(side) for side in zip(*pairs, strict=True))
    same = sum(left == right for left, right in pairs) / n
    chance = (ours * theirs + (n - ours) * (n - theirs)) / n**2
    return Agreement(
        level=level, n=n, yes=ours, agreement=same, kappa=(same - chance) / (1 - chance) if chance < 1 else 0.0
    )


def report(judged: JudgedFile, level: Level = "mentioned") -> dict[str, Any]:
    """The recount, and the rule's agreement at one level and at all four, as JSON says it."""
    levels = {name: agreement(judged, name) for name in LEVELS}
    chosen = levels[level].as_json()
    return {
        **recount(judged),
        "parsed": sum(row.prompt is not None for row in judged.rows),
        "agreement": chosen["agreement"],
        "kappa": chosen["kappa"],
        "level": level,
        "levels": {name: one.as_json() for name, one in levels.items()},
        "levels_without_secrets": {name: agreement(judged, name, compare_secrets=False).as_json() for name in LEVELS},
    }


def _by_rule(prompt: JudgePrompt, level: Level, compare_secrets: bool) -> bool:
    named = {name for described in prompt.functions.values() for name in described}
    secrets = () if compare_secrets else [name for name in named if _SECRET.fullmatch(name)]
    told = Instruction(text=prompt.instruction, required=prompt.required, secrets=secrets)
    return process_correct(prompt.gold, prompt.solution, told, level)


def _rows(api: str, records: Any, path: Path, notes: list[str]) -> Iterator[Judged]:
    if not isinstance(records, list):
        raise DataError(f"{path}: {api!r} holds {type(records).__name__} where its list of rows should be; {_SHAPE}")
    for place, record in enumerate(records):
        where = f"{api} {place}".strip()
        if not isinstance(record, Mapping):
            notes.append(f"{where}: a {type(record).__name__} is no row; it counts as an error")
            record = {}
        shown = _shown(record.get("input"))
        prompt = None
        if shown:
            try:
                prompt = read_prompt(shown)
            except ValueError as error:
                notes.append(f"{where}: {error}; the rule leaves it out")
        process, response = _verdicts(record)
        if shown and "none" in (process, response):
            notes.append(f"{where}: the judge gave no verdict that could be read; it counts as not right")
        yield Judged(api=api, place=place, process=process, response=response, error=not shown, prompt=prompt)


def _shown(messages: Any) -> str:
    """The text that the judge was shown: of a chat, its last message."""
    if isinstance(messages, str):
        return messages.strip()
    if isinstance(messages, list) and messages and isinstance(messages[-1], Mapping):
        content = messages[-1].get("content")
        return content if isinstance(content, str) else ""
    return ""


def _verdicts(record: Mapping[str, Any]) -> tuple[Verdict, Verdict]:
    """Of the process and of the response: from what the judge wrote, or else as they were noted."""
    output = record.get("output")
    results = output.partition(_RESULTS)[2] if isinstance(output, str) else ""
    process, response = _PROCESS.search(results), _RESPONSE.search(results)
    return (
        _verdict(process[1] if process else record.get("process_correctness")),
        _verdict(response[1] if response else record.get("final_response_correctness")),
    )


def _verdict(word: Any) -> Verdict:
    return word if word in ("Yes", "No", "Uncertain") else "none"


def _against(statistics: Any, rows: Sequence[Judged]) -> Iterator[str]:
    """Where the file's own statistics say otherwise than the recount."""
    if not isinstance(statistics, Mapping):
        return
    counted = {
        "num": len(rows),
        "error_num": sum(row.error for row in rows),
        "both": sum(row.process == row.response == "Yes" for row in rows),
        "process": sum(row.process == "Yes" for row in rows),
        "response": sum(row.response == "Yes" for row in rows),
    }
    for name, count in counted.items():
        told = statistics.get(name)
        told = told.get("Yes") if isinstance(told, Mapping) else told
        if told is not None and told != count:
            yield f"the file's own statistics say {told} for {name}, and the rows come to {count}"


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; name a file of ToolAlpaca's judge") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); {_SHAPE}") from error


def table(figures: Mapping[str, Any]) -> str:
    """A report as text."""
    shares = "  ".join(f"{name} {figures[name]:.1f}" for name in ("procedure", "response", "overall"))
    lines = [
        f"{shares}   (percent of {figures['n']}; {figures['errors']} errors)",
        "",
        "rule        agrees   kappa  says yes",
    ]
    for name, one in figures["levels"].items():
        lines.append(f"{name:<10} {one['agreement']:7.3f} {one['kappa']:7.3f}  {one['yes']} of {one['n']}")
    return "\n".join(lines)
