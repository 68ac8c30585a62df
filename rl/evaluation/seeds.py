"""Several runs that differ in their seed, taken together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.evaluation.evaluate import Played, changes
from rl.evaluation.intervals import Ratio, mean_over_seeds
from rl.run import write_json
from rollouts.store import Log
from rollouts.types import Group

STATES = ("start", "final", "last", "continued_cloning")
"""That every run may have, in the order of tables; recipes add others."""
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
    runs = [ratios_of(folder, measure) for folder in folders]
    states: dict[str, Any] = {}
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    for name in shared:
        means = {key: mean_over_seeds([run[name][key] for run in runs]) for key in runs[0][name]}
        states[name] = {key: figure.as_json() for key, figure in means.items()}
    pooled: dict[str, Any] = {"runs": [str(folder) for folder in folders], **states}
    for name in (name for name in shared if name != "final"):
        compared = changes([run["final"] for run in runs], [run[name] for run in runs])
        pooled["change" if name == "start" else f"final_over_{name}"] = {
            key: figure.as_json() for key, figure in compared.items()
        }
    write_json(path, pooled)
    return pooled


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
