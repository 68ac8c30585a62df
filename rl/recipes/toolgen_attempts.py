"""A ToolGen run's policy at work: what loads it, and how it attempts requests with the run's tools."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from executors.catalog import Catalog
from executors.errors import DataError
from executors.executor import Executor
from executors.foreign import unbacked
from executors.simulation.described import Described
from executors.types import ToolSpec
from rl.data.searches import searched, write_searches
from rl.data.tasks.tool_requests import Query, Retrieval
from rl.evaluation.agent import agent_ratios
from rl.evaluation.intervals import Ratio
from rl.models.load import load_merged, load_tokenizer
from rl.models.tool_tokens import ToolTokens
from rl.recipes.toolgen_config import Attempts, ToolGenConfig
from rl.run import Run
from rl.serving.atomic import AtomicPolicy, JoinedPolicy, Provider, every, given, retrieved, within
from rl.serving.engine import TransformersPolicy
from rollouts.formats.atomic import JoinedFormat
from rollouts.policy import Source
from rollouts.search import Searching, search_all
from rollouts.types import Sampling, Task

TOKENS = "tool_tokens.json"
"""The file of a run's folder with the text of each tool, and of the end."""
FINISH_NAME = "Finish"
"""Under which the end stands among the tools."""


def read_tokens(run: Run, config: ToolGenConfig) -> ToolTokens:
    """What stands for each tool of a run.

    Raises:
        DataError: the run has not come so far.
    """
    try:
        return ToolTokens(config.indexing, json.loads((run.path / TOKENS).read_text()))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{run.path} has no {TOKENS} that can be read ({error}); 'apprentice train' with --resume goes on with it"
        ) from error


def catalog_of(data: Retrieval, seed: int = 0) -> Catalog:
    """The tools of a run; where nothing runs them, their answers are made up by their schemas."""
    return data.catalog if data.catalog is not None else Catalog(unbacked(data.tools.values(), Described(seed)))


@dataclass(frozen=True, slots=True)
class ToolGenOpener:
    """Loads a ToolGen checkpoint as a policy whose calls are ordinary ones."""

    name: str
    tokens: ToolTokens
    specs: tuple[ToolSpec, ...]
    attempts: Attempts
    offered: bool = True
    """Whether the tools that a request names are the limit, whatever the provider gives."""

    @property
    def format(self) -> JoinedFormat:
        """How its tasks are written."""
        limits = self.attempts
        return JoinedFormat(
            self.tokens.texts,
            max_observation=limits.max_observation,
            max_documentation=limits.max_documentation,
        )

    def __call__(self, path: Path, version: int) -> JoinedPolicy:
        """Load it."""
        gpu = torch.cuda.is_available()
        model: Any = load_merged(path)
        if gpu:
            model.to("cuda")
        else:
            torch.set_num_threads(1)
        return self.policy(TransformersPolicy(self.name, model, load_tokenizer(path), version=version))

    def policy(self, engine: TransformersPolicy) -> JoinedPolicy:
        """With an engine of the model."""
        naming = AtomicPolicy(
            engine,
            self.tokens,
            FINISH_NAME,
            provider=self._provider(),
            retries=self.attempts.retries,
            max_arguments=self.attempts.max_arguments,
            schemas={spec.name: spec for spec in self.specs} if self.attempts.held_to_schema else None,
        )
        return JoinedPolicy(naming, self.format, self.specs)

    def _provider(self) -> Provider:
        if self.attempts.provider == "retriever":
            nearest = retrieved(self.specs, self.attempts.retrieved)
            return within(nearest) if self.offered else nearest
        return given if self.offered or self.attempts.provider == "truth" else every


def attempted(
    opener: ToolGenOpener, path: Path, data: Retrieval, queries: Sequence[Query], folder: Path
) -> dict[str, Ratio]:
    """Let a checkpoint attempt requests; its searches are left in ToolBench's form.

    Args:
        opener: of the policy.
        path: of the checkpoint.
        data: the tools.
        queries: the requests.
        folder: where a tree or chain of each is written, and ``answers.json`` for ToolBench's evaluation.
    """
    catalog, policy, attempts = catalog_of(data), opener(path, 0), opener.attempts
    every_name = catalog.names if attempts.provider != "truth" else None
    tasks = [Task(id=query.id, prompt=query.text, tools=every_name or query.offered) for query in queries]
    single = Searching(method="chain", width=1, depth=attempts.max_turns)
    searching = attempts.search.build(attempts.max_turns) if attempts.search else single
    source = Source(name=opener.name, policy=opener.name, sampling=Sampling(max_tokens=attempts.max_tokens))
    played = search_all(tasks, policy, Executor(catalog), opener.format, searching, source=source, round="attempts")
    found = asyncio.run(played)
    specs = {name: tool.spec for name, tool in data.tools.items()}
    made = {
        query.id: searched(one, opener.format, [specs[name] for name in query.offered])
        for query, one in zip(queries, found, strict=True)
    }
    write_searches(folder, made)
    return agent_ratios([one.episode() for one in found], [query.wanted for query in queries], data.tools)
