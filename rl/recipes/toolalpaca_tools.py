"""The tools of a ToolAlpaca run for those who ask its policy: every API of its corpus, answered by a simulation."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from executors.catalog import Catalog
from executors.corpus.records import read_records
from executors.corpus.toolset import GET_DETAILS, MAX_CHARS, toolset, user_tool
from executors.errors import DataError
from executors.executor import Executor
from executors.names import tool_name
from executors.openapi.tools import Api, read_openapi
from executors.retrieval import Index, text_of
from executors.simulation.simulated import Simulation
from executors.tool import Tool
from executors.tools.get_details import ScriptedUser
from rl.run import Run

_TIMEOUT = 120.0
"""Seconds of a call, as the corpus has it."""


@dataclass(frozen=True)
class Apis:
    """APIs as one set of tools, of which a question is offered those of one API, as every attempt of the corpus was."""

    catalog: Catalog
    owners: tuple[tuple[str, ...], ...]
    """By API, the names of its tools."""
    texts: tuple[str, ...]
    """By API, what it says of itself."""

    def chosen(self, question: str) -> Sequence[str]:
        """The tools of the API that suits a question best, by words, and the one that asks the user."""
        ((api, _),) = self._index.search(question, 1) or [(0, 0.0)]
        return (GET_DETAILS, *self.owners[api])

    @cached_property
    def _index(self) -> Index:
        specs = [" ".join(text_of(self.catalog.get(name).spec) for name in names) for names in self.owners]
        return Index(f"{told} {functions}" for told, functions in zip(self.texts, specs, strict=True))


@dataclass(frozen=True, slots=True)
class Distractors:
    """Draws the APIs whose functions are offered beside those of the one that a request is to."""

    apis: Sequence[Api]
    """Of one split."""
    count: int
    seed: int

    def beside(self, own: Api, key: str) -> list[Simulation]:
        """Some of the others; of the same key the same."""
        others = [api for api in self.apis if api is not own]
        drawn = random.Random(f"{self.seed}/{key}").sample(others, self.count)
        return [Simulation(api) for api in drawn]


@dataclass(frozen=True, slots=True)
class ApiExecutorBuilder:
    """Builds what runs the calls, as the corpus does: values are coerced to their types, observations are cut."""

    catalog: Catalog

    def __call__(self) -> Executor:
        return Executor(self.catalog, timeout=_TIMEOUT, max_chars=MAX_CHARS, coerce=True)


def corpus_of(run: Run) -> Path:
    """The file of a run's APIs. Raises DataError where there is none yet."""
    path = run.path / "corpus" / "apis.json"
    if not path.is_file():
        raise DataError(f"{run.path} has no corpus yet; 'apprentice train' with --resume goes on with it")
    return path


def read_apis(run: Run) -> Apis:
    """The APIs of a run: those that were learned from, and those held out.

    Where two have functions of the same name, the later one's is told apart by its API.

    Raises:
        DataError: the run has no corpus yet, or it cannot be read.
    """
    tools: dict[str, Tool] = {GET_DETAILS: user_tool(ScriptedUser())}
    owners: list[tuple[str, ...]] = []
    records = read_records(corpus_of(run))
    for record in records:
        names = []
        for tool in toolset(Simulation(read_openapi(record["Documentation"]))):
            name = tool.name if tool.name not in tools else tool_name(tool.name, str(record["Name"]))
            tools[name] = tool if name == tool.name else replace(tool, spec=replace(tool.spec, name=name))
            names.append(name)
        owners.append(tuple(names))
    told = tuple(f"{record['Name']} {record.get('Description', '')}" for record in records)
    return Apis(Catalog(tools.values()), tuple(owners), told)
