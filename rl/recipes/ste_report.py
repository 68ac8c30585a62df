"""The table of an STE run, or of several that differ in their seed: what each state gets right, with intervals."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from executors.errors import DataError
from rl.data.tables import write_text
from rl.evaluation.intervals import Figure, Ratio, difference, mean_over_seeds
from rl.recipes.ste_stages import ratios
from rl.run import Run
from rollouts.store import Log
from rollouts.types import Group

Columns = Mapping[str, Sequence[str]]
"""Tools by what they are called together."""
States = Mapping[str, Sequence[Group]]
_KINDS = ("wellformed", "api_match", "correct")
_MEANT = {
    "base": "before exploring",
    "icl": "shown in the prompt",
    "ft": "imitated",
    "ranked": "ranked",
    "tokens": "the tools' tokens alone",
    "control": "as much of the demonstrations alone",
    "documented": "from documentation alone",
}


def report(runs: Sequence[States], columns: Columns, summaries: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: every state on new and on known tools, what ft is over each, and the rounds.

    Args:
        runs: of each seed, its states.
        columns: the tools that are taken together.
        summaries: of each seed.
    """
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    used = {what: tools for what, tools in columns.items() if tools}
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    head = [f"{what}: {kind.replace('_', ' ')}" for what in used for kind in _KINDS]
    lines = [f"# STE, seeds {seeds}", "", "Shares with 95% intervals over questions and seeds.", ""]
    lines += [f"| state | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for name in shared:
        cells = [_mean(runs, name, tools, kind) for tools in used.values() for kind in _KINDS]
        lines.append(f"| {_called(name)} | {' | '.join(map(_shown, cells))} |")
    if "ft" in shared:
        lines += ["", "How much more ft gets right than each:", ""]
        lines += [f"| over | {' | '.join(used)} |", f"|---|{'---|' * len(used)}"]
        for name in (name for name in shared if name != "ft"):
            cells = [_over(runs, "ft", name, tools) for tools in used.values()]
            lines.append(f"| {_called(name)} | {' | '.join(_shown(cell, signed=True) for cell in cells)} |")
    for summary in summaries:
        lines += _rounds(summary, f", seed {summary['seed']}" if len(summaries) > 1 else "")
    return "\n".join(lines) + "\n"


def pool(folders: Sequence[Path], path: Path) -> str:
    """The report of several finished runs, from the attempts that they kept; written to a file.

    Args:
        folders: of the runs, which differ in their seed.
        path: of the file.

    Raises:
        DataError: a run has not come to its end.
    """
    runs, summaries, columns = [], [], {}
    for folder in folders:
        told = folder / "evaluation" / "summary.json"
        if not told.is_file():
            raise DataError(f"{folder} has no evaluation/summary.json: its run is not finished; go on with --resume")
        summary = json.loads(told.read_text())
        files = {
            name: state.get("attempts", f"{name}.jsonl")
            for name, state in summary.items()
            if isinstance(state, Mapping) and "n" in state
        }
        runs.append({name: list(Log(folder / "evaluation" / file, Group).read()) for name, file in files.items()})
        summaries.append(summary)
        known = (Run.open(folder).config()["known"] or {"tools": []})["tools"]
        columns = {"new": [tool for tool in summary["by_tool"]["base"] if tool not in known], "known": known}
    text = report(runs, columns, summaries)
    write_text(path, text)
    return text


def _rounds(summary: Mapping[str, Any], where: str) -> list[str]:
    """The matrices of one seed: a row for each round, a column for each batch."""
    lines: list[str] = []
    for name, told in summary.get("rounds", {}).items():
        count = len(told["matrix"][-1])
        lines += [
            "",
            f"Rounds, {name}{where}: correct, by batch; the first was known before.",
            "",
        ]
        lines += [
            f"| after | {' | '.join(f'batch {n}' for n in range(count))} | gate |",
            f"|---|{'---|' * (count + 1)}",
        ]
        for number, (row, gate) in enumerate(zip(told["matrix"], told["gate"], strict=True)):
            cells = [_shown(Figure(**cell)) for cell in row] + [""] * (count - len(row))
            verdict = "published" if gate["published"] else f"withheld: {', '.join(gate['lost'])}"
            lines.append(f"| round {number} | {' | '.join(cells)} | {verdict} |")
        lines += ["", f"Learned {told['learned']:.3f}, final {told['final']:.3f}, forgotten {told['forgotten']:.3f}."]
    return lines


def _ratios(run: States, name: str, tools: Sequence[str], kind: str) -> Ratio:
    return ratios(run[name], tools)[kind]


def _mean(runs: Sequence[States], name: str, tools: Sequence[str], kind: str) -> Figure:
    return mean_over_seeds([_ratios(run, name, tools, kind) for run in runs])


def _over(runs: Sequence[States], name: str, other: str, tools: Sequence[str]) -> Figure:
    after = [_ratios(run, name, tools, "correct") for run in runs]
    return difference(after, [_ratios(run, other, tools, "correct") for run in runs])


def _called(name: str) -> str:
    return f"{name} ({_MEANT[name]})" if name in _MEANT else name


def _shown(figure: Figure, *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"
