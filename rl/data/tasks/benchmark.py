"""What every benchmark gives: tools, tasks in disjoint splits, and answers that were recorded."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from executors.catalog import Catalog
from executors.errors import DataError
from rollouts.types import Task

_SHOWN = 3
"""Reasons that are told of rows that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Tasks and what is needed to attempt them."""

    catalog: Catalog
    demonstrations: tuple[Task, ...]
    """What behaviour cloning imitates; each has a gold call or a gold recording."""
    train: tuple[Task, ...]
    """What is improved on."""
    validation: tuple[Task, ...]
    """What checkpoints are chosen by."""
    test: tuple[Task, ...]
    """What is reported, and touched by nothing else."""
    recordings: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Recorded replies by policy and task id. A recording named ``gold`` holds whole gold solutions."""
    rejected: tuple[str, ...] = ()
    """Rows that could not be used, and why; counted and reported, never silently dropped."""


def shown(rejected: Iterable[str]) -> str:
    """Why rows could not be used: the first few reasons, each once, with the row that had it first."""
    rows: dict[str, list[str]] = {}
    for told in rejected:
        row, _, why = told.partition(": ")
        rows.setdefault(why, []).append(row)
    reasons = [f"{first}{f' and {len(more)} more' if more else ''}: {why}" for why, (first, *more) in rows.items()]
    return "; ".join([*reasons[:_SHOWN], *(["..."] if len(reasons) > _SHOWN else [])])


def digests(benchmark: Benchmark) -> dict[str, str]:
    """What the tasks of each split are told by: how many there are, and a digest of all that they say."""
    told = {}
    for split in ("demonstrations", "train", "validation", "test"):
        tasks = getattr(benchmark, split)
        digest = hashlib.sha256("\n".join(map(repr, tasks)).encode())
        told[split] = f"{len(tasks)} tasks, {digest.hexdigest()[:16]}"
    return told


def split_by_prompt(
    tasks: Iterable[Task], validation_share: float, test_share: float, origin: str
) -> dict[str, tuple[Task, ...]]:
    """Tasks as ``train``, ``validation`` and ``test``, each where the hash of its prompt alone puts it.

    Raises:
        DataError: one of them is empty.
    """
    splits: dict[str, list[Task]] = {"train": [], "validation": [], "test": []}
    for task in tasks:
        place = int.from_bytes(hashlib.blake2b(task.prompt.encode(), digest_size=4).digest(), "big") / 2**32
        held_out = "test" if place < test_share else "validation" if place < test_share + validation_share else ""
        splits[held_out or "train"].append(task)
    for name, members in splits.items():
        if not members:
            count = sum(map(len, splits.values()))
            raise DataError(f"{origin} has {count} usable rows, and none falls into the {name} split")
    return {name: tuple(members) for name, members in splits.items()}


def data_folder(name: str) -> Path:
    """A folder of real data sets, below ``$APPRENTICE_DATA`` (``../shared/data`` by default).

    Raises:
        DataError: it is not there.
    """
    root = Path(os.environ.get("APPRENTICE_DATA", "../shared/data"))
    if not (root / name).exists():
        raise DataError(
            f"the data set {name!r} is not in {root.resolve()}; set APPRENTICE_DATA to the folder that holds it"
        )
    return root / name
