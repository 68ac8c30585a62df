"""The corpus of a ToolAlpaca run: APIs, requests to them and attempts at these, by scripts or by models.

What a model wrote is kept in ``corpus/replies.jsonl`` as soon as it is there: a run that is begun again asks for no
reply twice.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from executors.catalog import Catalog
from executors.corpus.entries import Entry, choose_entries
from executors.corpus.modelled import ModelWriter, UnusableReplyError, Writing
from executors.corpus.records import Record, read_records, write_corpus
from executors.corpus.toolset import Backend, toolset
from executors.errors import ApprenticeError
from executors.openapi.tools import read_openapi
from executors.replies import KeptClient
from executors.simulation.played import Play, PlayedApi
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ModelUser, ScriptedUser
from rl.data.corpus import CorpusApi, instance_path, read_corpus_api, write_instances_of
from rl.data.tables import write_text, written
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.run import Run
from rl.serving.endpoint import EndpointPolicy
from rl.serving.sources import EndpointConfig, VllmConfig
from rollouts.instances import CorpusFormat, generate
from rollouts.instructions import Instruction, asked_instructions, planned_instructions
from rollouts.plans import Planner
from rollouts.policy import Policy, Source
from rollouts.types import Episode, Group, Sampling
from rollouts.worker import require_played

T = TypeVar("T")


class UnwrittenError(ApprenticeError):
    """A model that writes a part of the corpus could not be asked; what it wrote before is kept."""


class CorpusWriter:
    """Makes a run's corpus, each part by the model that the config names for it, else by a script."""

    def __init__(self, config: ToolAlpacaConfig, run: Run) -> None:
        """
        Raises:
            ConfigError: the key of an endpoint is not in the environment.
        """
        self.config = config
        self.folder = run.folder("corpus")
        self.left_out: list[str] = []
        """APIs and requests that a model wrote nothing usable for, with why."""
        self._rate: dict[str, Any] = {}
        self._clients: dict[str, KeptClient] = {}
        self._concurrency: dict[str, int] = {}
        for name, policy in config.policies.items():
            assert isinstance(policy, EndpointConfig | VllmConfig)
            self._clients[name] = KeptClient(policy.endpoint(), self.folder / f"replies-{name}.jsonl")
            self._concurrency[name] = policy.concurrency

    @property
    def costs(self) -> dict[str, Any]:
        """How fast instances were made, where any was now; what models were asked and what that cost, over the whole
        life of the run, where there are any."""
        if not self._clients:
            return self._rate
        spent = [client.spent for client in self._clients.values()]
        return self._rate | {
            "model_replies": sum(one.requests for one in spent),
            "model_tokens": sum(one.usage.prompt + one.usage.completion for one in spent),
            "usd": round(sum(one.usd for one in spent), 6),
            "unusable": len(self.left_out),
        }

    def records(self) -> tuple[list[Record], list[Record]]:
        """The APIs that are learned from, and those that are held out.

        Raises:
            UnwrittenError: the model that writes them could not be asked, or wrote too few.
        """
        wanted = self.config.corpus
        count = wanted.apis + wanted.held_out
        path = self.folder / "apis.json"
        if not path.exists():
            write_text(path, written(self._records(wanted.listed(), count)))
        records = read_records(path)
        return records[: wanted.apis], records[wanted.apis : count]

    def instances(self, records: Sequence[Record]) -> list[CorpusApi]:
        """Requests and attempts, kept in a file for each API as soon as they are made.

        Raises:
            TooManyFailuresError: a model could not be asked for too many of an API's attempts.
            UnwrittenError: a model could not be asked for requests.
        """
        began, paths = time.process_time(), self._paths(records)
        there = [path.exists() for path in paths]
        made = asyncio.run(self._closing(self._instances(records)))
        if fresh := sum(len(one.instances) for one, old in zip(made, there, strict=True) if not old):
            self._rate = {"instances_per_cpu_second": round(fresh / (time.process_time() - began), 1)}
        return made

    def _records(self, entries: Sequence[Entry], count: int) -> list[Record]:
        if (client := self._client("apis")) is None:
            return list(write_corpus(choose_entries(entries, count, self.config.seed), self.config.seed))
        writers = self.config.corpus.writers
        writing = Writing(
            attempts=writers.tries,
            turns=writers.pieces,
            max_tokens=writers.max_tokens,
            max_functions=writers.max_functions,
            at_once=writers.at_once,
        )
        writer = ModelWriter(client, writing, seed=self.config.seed)
        ordered = choose_entries(entries, len(entries), self.config.seed)
        records: list[Record] = []
        while len(records) < count and ordered:
            chosen, ordered = ordered[: count - len(records)], ordered[count - len(records) :]
            made, failed = asyncio.run(self._closing(writer.write_all(chosen)))
            records += made
            self.left_out += [f"{one.name}: {one.reason}" for one in failed]
            if lost := next((one for one in failed if not one.unusable), None):
                raise UnwrittenError(f"the API {lost.name} could not be written: {lost.reason}; --resume goes on there")
        if len(records) < count:
            raise UnwrittenError(
                f"{count} APIs are wanted, and of the {len(entries)} in the list {len(records)} could be written; the "
                f"first that could not: {self.left_out[0] if self.left_out else 'none'}; take a model that can, or a "
                "longer list"
            )
        return records

    async def _closing(self, work: Awaitable[T]) -> T:
        """What comes of some work, with every connection closed behind it."""
        try:
            return await work
        finally:
            for client in self._clients.values():
                await client.close()

    async def _instances(self, records: Sequence[Record]) -> list[CorpusApi]:
        config = self.config.corpus
        share, rest = divmod(config.instances, len(records))
        gate = asyncio.Semaphore(config.writers.at_once if self._clients else 1)
        paths = self._paths(records)

        async def one(number: int) -> None:
            async with gate:
                if not paths[number].exists():
                    await self._attempts(paths[number], records[number], share + (number < rest))

        made = await asyncio.gather(*map(one, range(len(records))), return_exceptions=True)
        for outcome in made:
            if isinstance(outcome, BaseException):
                raise outcome
        return [read_corpus_api(path) for path in paths]

    def _paths(self, records: Sequence[Record]) -> list[Path]:
        folder = self.folder / "instances"
        return [instance_path(folder, number, str(one["Name"])) for number, one in enumerate(records)]

    async def _attempts(self, path: Path, record: Record, count: int) -> None:
        """The requests to one API and the attempts at them, into its file."""
        config, name = self.config.corpus, str(record["Name"])
        asked = await self._requests(record, count)
        backend, user = self._backend(record), self._user()
        groups = await generate(
            name,
            asked,
            backend,
            assistant=self._assistant(backend, user),
            user=user,
            source=Source(
                name="assistant",
                policy="assistant",
                sampling=Sampling(temperature=config.writers.temperature, max_tokens=config.writers.max_tokens),
            ),
            seed=self.config.seed,
            at_once=min([config.at_once, *(self._concurrency[one] for one in config.writers.parts.values())]),
        )
        groups = [Group(group.task, tuple(map(_failed, group.episodes))) for group in groups]
        require_played(groups)
        write_instances_of(path, record, asked, groups)

    async def _requests(self, record: Record, count: int) -> list[Instruction]:
        name, seed, style = str(record["Name"]), self.config.seed, self.config.corpus.style
        if (client := self._client("requests")) is None:
            planner = Planner(name, read_openapi(record["Documentation"]).operations, seed)
            return planned_instructions(name, planner, count, style=style)
        try:
            return await asked_instructions(client, record, count, style=style, seed=seed)
        except UnusableReplyError as error:
            self.left_out.append(str(error))
            return []
        except ApprenticeError as error:
            raise UnwrittenError(f"requests to {name} could not be written: {error}; --resume goes on there") from error

    def _backend(self, record: Record) -> Backend:
        api = read_openapi(record["Documentation"])
        if (client := self._client("simulation")) is None:
            return Simulation(api)
        return PlayedApi(api, client, Play(rolls=self.config.corpus.writers.rolls))

    def _user(self) -> ScriptedUser | ModelUser:
        client = self._client("user")
        return ScriptedUser() if client is None else ModelUser(client)

    def _assistant(self, backend: Backend, user: ScriptedUser | ModelUser) -> Policy | None:
        """The model that attempts; None leaves it to the script."""
        name = self.config.corpus.writers.assistant
        if name is None:
            return None
        policy = self.config.policies[name]
        assert isinstance(policy, EndpointConfig | VllmConfig)
        catalog = Catalog(toolset(backend, user))
        return EndpointPolicy(
            name, self._clients[name], CorpusFormat(), catalog, mode=policy.mode, system=policy.system
        )

    def _client(self, part: str) -> KeptClient | None:
        name = self.config.corpus.writers.parts.get(part)
        return None if name is None else self._clients[name]


def _failed(episode: Episode) -> Episode:
    """The attempt; as a failed one where who plays the user or the API could not be asked."""
    lost = [seen.content for seen in episode.observations if seen.status in ("unavailable", "timeout")]
    return replace(episode, stop="failed", error=lost[0]) if lost else episode
