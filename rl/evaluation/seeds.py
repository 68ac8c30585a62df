"""Several runs that differ in their seed, taken together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from executors.errors import DataError
from rl.evaluation.evaluate import Played, changes
from rl.evaluation.intervals import Ratio, mean_over_seeds
from rl.run import write_json
from rollouts.store import Log
from rollouts.types import Group

STATES = ("start", "final", "last", "continued_cloning")
"""That every run may have, in the order of tables; recipes add others."""
States: TypeAlias = Mapping[str, Mapping[str, Ratio]]
"""By state and by figure."""
_KEPT = "ratios.json"
_CHECKPOINTS = ("-validation", "-test")
"""Ends of the names of what ``apprentice evaluate`` keeps, which is no state of a run."""


def ratios_of(folder: Path, measure: Played) -> dict[str, dict[str, Ratio]]:
    """By state, the figures of a run, from the attempts that it kept."""
    states: dict[str, dict[str, Ratio]] = {}
    there = {path.stem for path in (folder / "evaluation").glob("*.jsonl") if not path.stem.endswith(_CHECKPOINTS)}
    for name in (*STATES, *sorted(there - set(STATES))):
        groups = list(Log(folder / "evaluation" / f"{name}.jsonl", Group).read())
        if groups:
            states[name] = measure.ratios(groups)
        if name == "start" and groups:
            states |= {hand: measure.ratios(groups, source) for hand, source in measure.by_hand().items()}
    return states


def pool_seeds(folders: Sequence[Path], measure: Played, path: Path) -> dict[str, Any]:
    """Mean figures over runs, and the changes from start to final; written to a file.

    Intervals resample the runs and the questions, which are the same for all runs.

    Args:
        folders: of the runs.
        measure: how they are measured.
        path: of the file.
    """
    pooled = {"runs": [str(folder) for folder in folders]} | _pooled([ratios_of(one, measure) for one in folders])
    write_json(path, pooled)
    return pooled


def write_ratios(folder: Path, sets: Mapping[str, States]) -> None:
    """Keep a run's figures question by question, for ``pool_kept``.

    Args:
        folder: of the run.
        sets: by name of the test set and by state.
    """
    parts = {
        name: {state: {key: asdict(ratio) for key, ratio in ratios.items()} for state, ratios in states.items()}
        for name, states in sets.items()
    }
    write_json(folder / "evaluation" / _KEPT, parts)


def pool_kept(folders: Sequence[Path], path: Path) -> dict[str, Any]:
    """Mean figures over runs that kept them, and the changes from start to final, by test set; written to a file.

    Raises:
        DataError: a run has kept none.
    """
    runs = [_kept(folder) for folder in folders]
    pooled = {name: _pooled([run[name] for run in runs]) for name in runs[0]}
    write_json(path, {"runs": [str(folder) for folder in folders], "tests": pooled})
    return pooled


def _kept(folder: Path) -> dict[str, dict[str, dict[str, Ratio]]]:
    path = folder / "evaluation" / _KEPT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} has no figures to be pooled: {path} cannot be read: {error}") from error
    return {
        name: {state: {key: Ratio(**one) for key, one in ratios.items()} for state, ratios in states.items()}
        for name, states in content.items()
    }


def _pooled(runs: Sequence[States]) -> dict[str, Any]:
    """By state that all runs have, and by figure; then the changes to the final state."""
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    pooled: dict[str, Any] = {}
    for name in shared:
        means = {key: mean_over_seeds([run[name][key] for run in runs]) for key in runs[0][name]}
        pooled[name] = {key: figure.as_json() for key, figure in means.items()}
    for name in (name for name in shared if name != "final" and "final" in shared):
        both = [key for key in runs[0]["final"] if key in runs[0][name]]
        late, early = ([{key: run[state][key] for key in both} for run in runs] for state in ("final", name))
        pooled["change" if name == "start" else f"final_over_{name}"] = {
            key: figure.as_json() for key, figure in changes(late, early).items()
        }
    return pooled


def tall(pooled: Mapping[str, Any]) -> str:
    """Pooled figures as text, a line each, with a column for every state and for the change from start to final."""
    shown = {name: figures for name, figures in pooled.items() if not name.startswith("final_over_")}
    keys = list(dict.fromkeys(key for figures in shown.values() for key in figures))
    lines = [" " * 26 + "".join(f"{name:>24}" for name in shown)]
    for key in keys:
        cells = (_shown(figures[key]) if key in figures else "" for figures in shown.values())
        lines.append(f"{key:<26}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(map(str.rstrip, lines))


def table(pooled: Mapping[str, Any]) -> str:
    """The pooled figures as text."""
    names = [name for name, value in pooled.items() if isinstance(value, Mapping)]
    figures = list(pooled[names[0]])
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{figure:>24}" for figure in figures)]
    for name in names:
        cells = (pooled[name][figure] for figure in figures)
        lines.append(f"{name:<{width}}" + "".join(f"{_shown(cell):>24}" for cell in cells))
    return "\n".join(lines)


def _shown(cell: Mapping[str, float]) -> str:
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
