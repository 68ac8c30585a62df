"""GSM8K's 1,319 test questions with the solutions of four models: ready candidates that call a calculator many times.

What a solution's author wrote as the results of its calls is dropped and calculated again. These are the benchmark's
test questions, so they are split by question before anything else, and figures on the held-out quarter are never set
beside published ones.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.catalog import Catalog
from executors.errors import DataError
from executors.tools.calculator import calculator
from rl.config import Strict
from rl.data.tasks.benchmark import Benchmark, data_folder
from rollouts.formats.inline import AnnotatedFormat
from rollouts.types import Task

Split = Literal["train", "validation", "test"]
GOLD = "gold"


class Gsm8kPool(Strict):
    """GSM8K's test questions and the solutions that came with them."""

    kind: Literal["gsm8k_pool"] = "gsm8k_pool"
    sources: tuple[str, ...] = Field(
        default=("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"), min_length=1
    )
    """Models whose solutions are read; each is a policy whose replies were recorded."""

    def catalog(self) -> Catalog:
        """The calculator."""
        return Catalog([calculator])

    def load(self, seed: int) -> Benchmark:
        """Read the pool.

        Args:
            seed: of the order of the training tasks; which split a question belongs to is its own hash's to say.

        Raises:
            DataError: the data is not there or cannot be read, or a source is in none of its rows.
        """
        path = data_folder("gsm8k") / "example_model_solutions.jsonl"
        splits: dict[str, list[Task]] = {"train": [], "validation": [], "test": []}
        recordings: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in (GOLD, *self.sources)}
        rejected: list[str] = []
        for number, row in _rows(path):
            try:
                solutions = {GOLD: str(row["ground_truth"])}
                solutions |= {name: str(row[name]["solution"]) for name in self.sources if name in row}
                task = _task(str(row["question"]), solutions[GOLD])
            except (KeyError, TypeError, ValueError) as error:
                rejected.append(f"line {number}: {type(error).__name__}: {error}")
                continue
            splits[task.labels["split"]].append(task)
            for name, solution in solutions.items():
                recordings[name][task.id] = AnnotatedFormat.replies(solution)
        if empty := [name for name in self.sources if not recordings[name]]:
            raise DataError(f"{path} has no solutions of {empty[0]!r}; each of its lines names the models that it has")
        random.Random(f"gsm8k_pool/{seed}").shuffle(splits["train"])
        return Benchmark(
            catalog=self.catalog(),
            demonstrations=tuple(splits["train"]),
            train=tuple(splits["train"]),
            validation=tuple(splits["validation"]),
            test=tuple(splits["test"]),
            recordings=recordings,
            rejected=tuple(rejected),
        )


def split_of(question: str) -> Split:
    """Where a question belongs: 70% train, 5% validation, 25% test, by its hash alone."""
    place = int(_hash(question)[:8], 16) % 100
    return "train" if place < 70 else "validation" if place < 75 else "test"


def _task(question: str, solution: str) -> Task:
    answer = AnnotatedFormat().answer(solution)
    if not answer:
        raise ValueError("its gold solution has no line with the answer")
    calls = sum(reply.endswith(AnnotatedFormat.stop) for reply in AnnotatedFormat.replies(solution))
    return Task(
        id=f"gsm8k-{_hash(question)[:12]}",
        prompt=question,
        answer=answer,
        tools=(calculator.name,),
        labels={"split": split_of(question), "calls": str(calls) if calls < 6 else "6+"},
    )


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open() as file:
            for number, line in enumerate(file, start=1):
                yield number, json.loads(line)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
