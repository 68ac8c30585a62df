"""Questions about an invented world, from a seeded generator, and the passages that answer them.

A few places are famous: they come up so often that a small model knows them by heart. The others are obscure, and are
looked up. Nobody's knowledge is needed, and nothing is downloaded: the same world number always gives the same world.
"""

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from executors.catalog import Catalog
from executors.tools.wiki_search import Passage, wiki_search_tool
from executors.types import ToolCall
from rl.config import Strict
from rl.data.tasks.benchmark import Benchmark
from rl.data.tasks.drawn import Question, draw_tasks, shares

Level = Literal["famous", "obscure"]

_SYLLABLES = tuple(first + last for first in "bdgklmnprstvz" for last in "aeiou")
_ASKED: Mapping[str, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {place}?",
        "Name the capital of {place}.",
        "Which town is the capital of {place}?",
        "The capital of {place} is called what?",
        "Which capital does {place} have?",
        "Tell me the capital of {place}.",
        "What do they call the capital of {place}?",
    ),
    "coin": (
        "What is the coin of {place}?",
        "Name the coin of {place}.",
        "Which coin is the coin of {place}?",
        "The coin of {place} is called what?",
        "With which coin does one pay in {place}?",
        "Tell me the coin of {place}.",
        "What do they call the coin of {place}?",
    ),
    "river": (
        "What is the river of {place}?",
        "Name the river of {place}.",
        "Which river is the river of {place}?",
        "The river of {place} is called what?",
        "Which river runs through {place}?",
        "Tell me the river of {place}.",
        "What do they call the river of {place}?",
    ),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be asked about a place."""

    place: str
    relation: str
    value: str

    @property
    def passage(self) -> Passage:
        """What an encyclopedia says of it."""
        title = f"{self.relation} of {self.place}"
        return Passage(title, title, self.value)


class Facts(Strict):
    """Questions that are known by heart or looked up in an encyclopedia of an invented world."""

    kind: Literal["facts"] = "facts"
    world: int = Field(default=0, ge=0)
    """Which world: another number has other places."""
    famous: int = Field(default=40, gt=0)
    """Places that come up all the time, three facts each."""
    obscure: int = Field(default=400, gt=0)
    """Places that hardly ever do."""
    tool: str = "wiki_search"
    """What the search is called."""
    passages: int = Field(default=1, gt=0)
    """How many come back from a search."""
    demonstrations: int = Field(default=6000, gt=0)
    demonstration_mix: dict[Level, float] = {"famous": 0.6, "obscure": 0.4}
    train: int = Field(default=1000, gt=0)
    validation: int = Field(default=60, gt=0)
    test: int = Field(default=200, gt=0)
    mix: dict[Level, float] = {"famous": 0.4, "obscure": 0.6}
    """Share of each level in the train, validation and test questions; the famous ones can run out."""

    @field_validator("demonstration_mix", "mix")
    @classmethod
    def _shares(cls, mix: dict[Level, float]) -> dict[Level, float]:
        return shares(mix)

    def facts(self) -> dict[Level, list[Fact]]:
        """The world: every fact of every place."""
        generator = random.Random(f"facts/{self.world}")
        places = _names(generator, self.famous + self.obscure, syllables=3)
        values = {relation: _names(generator, 60, syllables=2) for relation in _ASKED}
        known = [Fact(place, relation, generator.choice(values[relation])) for place in places for relation in _ASKED]
        border = self.famous * len(_ASKED)
        return {"famous": known[:border], "obscure": known[border:]}

    def catalog(self) -> Catalog:
        """The search over the world's encyclopedia."""
        passages = [fact.passage for facts in self.facts().values() for fact in facts]
        return Catalog([wiki_search_tool(passages, self.passages, name=self.tool)])

    def load(self, seed: int) -> Benchmark:
        """Draw the questions: demonstrations and train by the seed, validation and test the same for every seed.

        Raises:
            DataError: a split has too few distinct questions.
        """
        draws: Mapping[str, Callable[[random.Random], Question]] = {
            level: functools.partial(_draw, facts, self.tool) for level, facts in self.facts().items()
        }
        draw = functools.partial(draw_tasks, f"facts{self.world}", draws=draws)
        return Benchmark(
            catalog=self.catalog(),
            demonstrations=tuple(
                draw("train", self.demonstrations, seed=seed, mix=self.demonstration_mix, distinct=False)
            ),
            train=tuple(draw("train", self.train, seed=seed + 1_000_003, mix=self.mix)),
            validation=tuple(draw("validation", self.validation, seed=0, mix=self.mix)),
            test=tuple(draw("test", self.test, seed=0, mix=self.mix)),
        )


def _draw(facts: list[Fact], tool: str, generator: random.Random) -> Question:
    fact = generator.choice(facts)
    prompt = generator.choice(_ASKED[fact.relation]).format(place=fact.place)
    return Question(prompt, fact.value, ToolCall(tool, {"query": f"{fact.relation} {fact.place}"}))


def _names(generator: random.Random, count: int, syllables: int) -> list[str]:
    """Different invented names."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(generator.choices(_SYLLABLES, k=syllables)).capitalize()] = None
    return list(names)
