"""Arithmetic questions in words, from a seeded generator: the embedded benchmark.

Four levels: ``easy`` facts that a small model can know by heart, ``mid`` sums of two-digit numbers, ``hard`` ones of
three or four digits or with a decimal, and ``two`` steps. The splits are disjoint: a question's own hash says where it
belongs, so no evaluation question is ever trained on, whatever the seeds.
"""

import functools
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal, TypeAlias

from pydantic import Field, field_validator

from executors.catalog import Catalog
from executors.tools.calculator import calculator, written
from executors.types import ToolCall
from rl.config import Strict
from rl.data.tasks.benchmark import Benchmark
from rl.data.tasks.drawn import Question, Split, draw_tasks, shares, split_of
from rollouts.types import Task

Level = Literal["easy", "mid", "hard", "two"]

__all__ = ["Arithmetic", "arithmetic_tasks", "split_of"]

LEVELS: tuple[Level, ...] = ("easy", "mid", "hard", "two")
EVALUATION_MIX: Mapping[Level, float] = {"easy": 0.40, "mid": 0.15, "hard": 0.30, "two": 0.15}

_NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn")
_THINGS = ("apples", "books", "coins", "pens", "shells", "stamps")

_ONE_STEP: Mapping[str, tuple[str, ...]] = {
    "+": (
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "How much is {a} + {b}?",
        "Find the sum of {a} and {b}.",
        "{name} has {a} {things} and gets {b} more. How many now?",
        "One box holds {a} {things}, another holds {b}. How many in all?",
        "Increase {a} by {b}.",
    ),
    "-": (
        "What is {a} minus {b}?",
        "Take {b} from {a}.",
        "How much is {a} - {b}?",
        "Find the difference of {a} and {b}.",
        "{name} has {a} {things} and gives away {b}. How many are left?",
        "Of {a} {things}, {b} are sold. How many remain?",
        "Decrease {a} by {b}.",
    ),
    "*": (
        "What is {a} times {b}?",
        "Multiply {a} by {b}.",
        "How much is {a} * {b}?",
        "Find the product of {a} and {b}.",
        "{name} fills {a} bags with {b} {things} each. How many in all?",
        "There are {a} rows of {b} {things}. How many altogether?",
        "Work out {a} groups of {b}.",
    ),
    "/": (
        "What is {a} divided by {b}?",
        "Divide {a} by {b}.",
        "How much is {a} / {b}?",
        "{name} shares {a} {things} among {b} friends. How many each?",
    ),
}
_TWO_STEP: Mapping[str, tuple[str, ...]] = {
    "({a}+{b})*{c}": (
        "Add {a} and {b}, then multiply by {c}.",
        "{name} packs {a} red and {b} blue {things} a day. How many in {c} days?",
    ),
    "({a}-{b})*{c}": (
        "Take {b} from {a}, then multiply by {c}.",
        "Each of {c} boxes held {a} {things} and lost {b}. How many are left in all?",
    ),
    "{a}*{b}+{c}": (
        "Multiply {a} by {b}, then add {c}.",
        "{name} buys {a} bags of {b} {things} and finds {c} more. How many now?",
    ),
    "{a}*{b}-{c}": (
        "Multiply {a} by {b}, then take away {c}.",
        "{name} has {a} rows of {b} {things} and sells {c}. How many are left?",
    ),
}


class Arithmetic(Strict):
    """The embedded benchmark: how many questions of which levels."""

    kind: Literal["arithmetic"] = "arithmetic"
    demonstrations: int = Field(default=20_000, gt=0)
    """Training questions that behaviour cloning imitates."""
    demonstration_mix: dict[Level, float] = dict(EVALUATION_MIX)
    """Share of each level among them."""
    train: int = Field(default=4608, gt=0)
    """Training questions to improve on."""
    validation: int = Field(default=200, gt=0)
    test: int = Field(default=700, gt=0)
    mix: dict[Level, float] = dict(EVALUATION_MIX)
    """Share of each level in the train, validation and test questions."""

    @field_validator("demonstration_mix", "mix")
    @classmethod
    def _shares(cls, mix: dict[Level, float]) -> dict[Level, float]:
        return shares(mix)

    def catalog(self) -> Catalog:
        """The calculator."""
        return Catalog([calculator])

    def load(self, seed: int) -> Benchmark:
        """Draw the questions: demonstrations and train by the seed, validation and test the same for every seed."""
        return Benchmark(
            catalog=self.catalog(),
            demonstrations=tuple(
                arithmetic_tasks("train", self.demonstrations, seed=seed, mix=self.demonstration_mix, distinct=False)
            ),
            train=tuple(arithmetic_tasks("train", self.train, seed=seed + 1_000_003, mix=self.mix)),
            validation=tuple(arithmetic_tasks("validation", self.validation, seed=0, mix=self.mix)),
            test=tuple(arithmetic_tasks("test", self.test, seed=0, mix=self.mix)),
        )


def arithmetic_tasks(
    split: Split, count: int, *, seed: int, mix: Mapping[Level, float] = EVALUATION_MIX, distinct: bool = True
) -> list[Task]:
    """Draw questions of one split; see ``draw_tasks``."""
    return draw_tasks("arithmetic", split, count, seed=seed, mix=mix, draws=_LEVEL_DRAWS, distinct=distinct)


Drawn: TypeAlias = tuple[str, str, Fraction]
"""A question, its expression and its value."""


def _easy(generator: random.Random) -> Drawn:
    operation = generator.choice("+-*")
    a, b = generator.randint(1, 9), generator.randint(1, 9)
    return _one_step(generator, operation, *((a + b, b) if operation == "-" else (a, b)))


def _mid(generator: random.Random) -> Drawn:
    operation = generator.choice("+-")
    a, b = generator.randint(10, 99), generator.randint(10, 99)
    return _one_step(generator, operation, *((a, b) if operation == "+" else (max(a, b), min(a, b))))


def _hard(generator: random.Random) -> Drawn:
    operation = generator.choice("+-*/")
    if operation == "/":
        b, quotient = generator.randint(3, 99), generator.randint(12, 999)
        return _one_step(generator, operation, b * quotient, b)
    if generator.random() < 0.5:
        a, b = Fraction(generator.randint(101, 999), 10), Fraction(generator.randint(11, 99))
    else:
        a, b = Fraction(generator.randint(100, 9999)), Fraction(generator.randint(100, 9999))
    if operation == "-" and a < b:
        a, b = b, a
    return _one_step(generator, operation, a, b)


def _two(generator: random.Random) -> Drawn:
    pattern = generator.choice(list(_TWO_STEP))
    a, b, c = generator.randint(11, 99), generator.randint(3, 60), generator.randint(3, 19)
    if "-{b}" in pattern and a <= b:
        a, b = b + 11, a
    values: dict[str, int] = {"a": a, "b": b, "c": c}
    text = generator.choice(_TWO_STEP[pattern]).format(**values, **_words(generator))
    expression = pattern.format(**values)
    results = {"({a}+{b})*{c}": (a + b) * c, "({a}-{b})*{c}": (a - b) * c, "{a}*{b}+{c}": a * b + c}
    return text, expression, Fraction(results.get(pattern, a * b - c))


def _one_step(generator: random.Random, operation: str, a: Fraction | int, b: Fraction | int) -> Drawn:
    a, b = Fraction(a), Fraction(b)
    text = generator.choice(_ONE_STEP[operation])
    question = text.format(a=written(a), b=written(b), **_words(generator))
    value = {"+": a + b, "-": a - b, "*": a * b}.get(operation, a / b)
    return question, f"{written(a)}{operation}{written(b)}", value


def _words(generator: random.Random) -> dict[str, str]:
    return {"name": generator.choice(_NAMES), "things": generator.choice(_THINGS)}


def _question(draw: Callable[[random.Random], Drawn], generator: random.Random) -> Question:
    prompt, expression, value = draw(generator)
    return Question(prompt, written(value), ToolCall("calculator", {"expression": expression}))


_DRAWS: Mapping[Level, Callable[[random.Random], Drawn]] = {"easy": _easy, "mid": _mid, "hard": _hard, "two": _two}

_LEVEL_DRAWS: Mapping[str, Callable[[random.Random], Question]] = {
    level: functools.partial(_question, draw) for level, draw in _DRAWS.items()
}
