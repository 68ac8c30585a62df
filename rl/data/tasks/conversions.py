"""Questions about units, from a seeded generator: small metric steps that one knows by heart, and others."""

import functools
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal

from pydantic import Field, field_validator

from executors.catalog import Catalog
from executors.tools.calculator import written
from executors.tools.units import units
from executors.types import ToolCall
from rl.config import Strict
from rl.data.tasks.benchmark import Benchmark
from rl.data.tasks.drawn import Question, draw_tasks, shares

Level = Literal["plain", "odd"]

_PLAIN: Mapping[tuple[str, str], int] = {
    ("km", "m"): 1000,
    ("m", "cm"): 100,
    ("cm", "mm"): 10,
    ("kg", "g"): 1000,
    ("hour", "minute"): 60,
    ("day", "hour"): 24,
}
"""How many of the second unit the first one is."""
_ODD: Mapping[tuple[str, str], Fraction] = {
    ("mile", "foot"): Fraction(5280),
    ("yard", "foot"): Fraction(3),
    ("inch", "cm"): Fraction("2.54"),
    ("stone", "pound"): Fraction(14),
    ("pound", "ounce"): Fraction(16),
    ("gallon", "pint"): Fraction(8),
    ("week", "hour"): Fraction(168),
    ("day", "minute"): Fraction(1440),
    ("km", "cm"): Fraction(100_000),
}
_ASKED = (
    "How many {small} are {amount} {large}?",
    "Convert {amount} {large} to {small}.",
    "What is {amount} {large} in {small}?",
    "Write {amount} {large} in {small}.",
    "{amount} {large} make how many {small}?",
    "A thing of {amount} {large}: how many {small} is that?",
    "Give {amount} {large} as {small}.",
    "Turn {amount} {large} into {small}.",
)


class Conversions(Strict):
    """Questions that are known by heart or given to the converter of units."""

    kind: Literal["conversions"] = "conversions"
    demonstrations: int = Field(default=6000, gt=0)
    demonstration_mix: dict[Level, float] = {"plain": 0.6, "odd": 0.4}
    train: int = Field(default=1000, gt=0)
    validation: int = Field(default=60, gt=0)
    test: int = Field(default=150, gt=0)
    mix: dict[Level, float] = {"plain": 0.3, "odd": 0.7}
    """Share of each level in the train, validation and test questions; the plain ones can run out."""

    @field_validator("demonstration_mix", "mix")
    @classmethod
    def _shares(cls, mix: dict[Level, float]) -> dict[Level, float]:
        return shares(mix)

    def catalog(self) -> Catalog:
        """The converter."""
        return Catalog([units])

    def load(self, seed: int) -> Benchmark:
        """Draw the questions: demonstrations and train by the seed, validation and test the same for every seed.

        Raises:
            DataError: a split has too few distinct questions.
        """
        draw = functools.partial(draw_tasks, "conversions", draws=_DRAWS)
        return Benchmark(
            catalog=self.catalog(),
            demonstrations=tuple(
                draw("train", self.demonstrations, seed=seed, mix=self.demonstration_mix, distinct=False)
            ),
            train=tuple(draw("train", self.train, seed=seed + 1_000_003, mix=self.mix)),
            validation=tuple(draw("validation", self.validation, seed=0, mix=self.mix)),
            test=tuple(draw("test", self.test, seed=0, mix=self.mix)),
        )


def _plain(generator: random.Random) -> Question:
    (large, small), factor = generator.choice(list(_PLAIN.items()))
    return _question(generator, generator.randint(2, 12), large, small, Fraction(factor))


def _odd(generator: random.Random) -> Question:
    (large, small), factor = generator.choice(list(_ODD.items()))
    return _question(generator, generator.randint(11, 999), large, small, factor)


def _question(generator: random.Random, amount: int, large: str, small: str, factor: Fraction) -> Question:
    prompt = generator.choice(_ASKED).format(amount=amount, large=large, small=small)
    call = ToolCall("units", {"amount": amount, "from_unit": large, "to_unit": small})
    return Question(prompt, written(amount * factor), call)


_DRAWS: Mapping[str, Callable[[random.Random], Question]] = {"plain": _plain, "odd": _odd}
