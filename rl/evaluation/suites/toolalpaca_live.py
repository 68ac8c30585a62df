"""ToolAlpaca's evaluation sets, played: 100 requests to simulated APIs, 114 to real ones, judged by rule or by a model.

A real API is called where it is, with keys from the environment. What its network, its server or its key is to blame
for is told apart, tried again when the evaluation is run again, and never scored.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from executors.catalog import Catalog
from executors.corpus.records import Record, read_records
from executors.corpus.toolset import Backend, api_executor
from executors.errors import ApprenticeError, ConfigError
from executors.http.client import HttpConfig
from executors.openapi.real import RealApi, secrets_of
from executors.openapi.tools import read_openapi
from executors.replies import KeptClient
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ModelUser, ScriptedUser
from rewards.process import Instruction, Level, process_correct, read_gold
from rl.config import Strict
from rl.data.tables import write_text, written
from rl.data.tasks.benchmark import data_folder
from rl.data.toolalpaca import Instance
from rl.data.toolalpaca import record as instance_record
from rl.evaluation.simulated_apis import steps_of
from rl.evaluation.suites.sitting import claim, kept_client
from rl.evaluation.suites.toolalpaca import read_judged, recount
from rl.evaluation.suites.toolalpaca_judge import Case, judged
from rl.serving.endpoint import EndpointPolicy
from rl.serving.sources import EndpointConfig, LocalConfig, PolicyConfig, VllmConfig
from rollouts.instances import MAX_TURNS, CorpusFormat, attempted
from rollouts.policy import Policy, Source
from rollouts.store import Log
from rollouts.types import Episode, Group, Sampling, Task

Apis = Literal["simulated", "real"]


class LiveOptions(Strict):
    """What is played, by whom."""

    apis: Apis = "simulated"
    """ToolAlpaca's simulated set, answered by the simulator, or its real set, whose APIs are called."""
    records: str | None = None
    """A file of API records with ``Golden_Answers``; that of the data pack by default."""
    only: list[str] = []
    """Names of APIs; all by default."""
    servers: dict[str, str] = {}
    """By API, where its requests go, if not to the document's own server; one of this machine may be reached."""
    secrets: dict[str, dict[str, str]] = {}
    """By API, for each parameter or security scheme that says who calls, the variable of the environment with its
    secret. By default those of the record's ``Authentication``: ``CURRENCYBEACON_API_KEY`` and the like."""
    user: EndpointConfig | None = None
    """A model in the user's part, who is asked for details; without, the user has nothing to add."""
    judge: EndpointConfig | None = None
    """A model that judges process and response; without, the process is judged by rule and the response is not."""
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=512, gt=0)
    """Of one reply."""
    max_turns: int = Field(default=MAX_TURNS, gt=0)
    at_once: int = Field(default=8, gt=0)
    """Attempts at one API under way at the same time."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The attempts at one API's requests."""

    record: Record
    secrets: tuple[str, ...]
    """Parameters that say who calls."""
    groups: tuple[Group, ...]

    @property
    def name(self) -> str:
        return str(self.record["Name"])


def unreached(episode: Episode) -> str:
    """Why an attempt came to nothing that is not the policy's fault; empty where it did."""
    if episode.stop == "failed":
        return episode.error
    lost = [seen.content for seen in episode.observations if seen.status in ("unavailable", "timeout")]
    return lost[0] if lost else ""


def evaluate_live(policy: PolicyConfig, options: LiveOptions, kept: Path, level: Level) -> dict[str, Any]:
    """Play an evaluation set and judge it; what is in ``kept`` is not played again, unless it was not reached.

    Args:
        policy: who attempts.
        options: what, and how.
        kept: a folder for attempts, verdicts and what endpoints replied.
        level: of the rule.

    Returns:
        The figures, in percent of the requests that could be played; and notes.

    Raises:
        ConfigError: there is nothing to play.
        ApprenticeError: the judge could not be asked; what it said before is kept.
    """
    records = _records(options)
    notes: list[str] = []
    ready: list[tuple[Record, Backend, tuple[str, ...]]] = []
    left_out = 0
    for record in records:
        secrets, missing = _secrets(record, options)
        if missing:
            left_out += len(record["Instructions"])
            notes.append(f"{record['Name']}: left out: {', '.join(missing)} is not set; export the API's key there")
            continue
        ready.append((record, _backend(record, secrets, options), tuple(secrets)))
    if not ready:
        raise ConfigError(f"there is no API to play: {'; '.join(notes) or 'none has that name'}")
    fields = {"apis", "records", "user", "temperature", "max_tokens", "max_turns", "seed"}
    claim(kept, policy, options.model_dump(mode="json", include=fields))
    played = asyncio.run(_play(policy, options, kept, ready))
    figures = _scored(played, level, notes)
    figures |= {"left_out": left_out}
    if options.judge is not None:
        figures |= asyncio.run(_judge(options.judge, played, kept, options.seed))
    return {**figures, "notes": notes}


def _records(options: LiveOptions) -> list[Record]:
    path = Path(options.records) if options.records else data_folder("toolalpaca") / f"eval_{options.apis}.json"
    records = read_records(path)
    for record in records:
        if not {"Instructions", "Golden_Answers"} <= record.keys():
            raise ConfigError(f"{path}: {record['Name']} has no Instructions or no Golden_Answers to be judged by")
    names = [str(record["Name"]) for record in records]
    named = {*options.only, *options.servers, *options.secrets}
    if unknown := sorted(named - set(names)):
        raise ConfigError(f"there is no API {unknown[0]!r} in {path}; there are: {', '.join(names)}")
    return [record for record in records if not options.only or record["Name"] in options.only]


def _secrets(record: Record, options: LiveOptions) -> tuple[dict[str, str], list[str]]:
    """The variables by parameter, and those that are not set; a simulation asks for none."""
    name = str(record["Name"])
    if options.apis == "simulated" and name not in options.servers:
        return {}, []
    return secrets_of(name, record.get("Authentication") or {}, options.secrets.get(name))


def _backend(record: Record, secrets: Mapping[str, str], options: LiveOptions) -> Backend:
    api, server = read_openapi(record["Documentation"]), options.servers.get(str(record["Name"]), "")
    if options.apis == "simulated" and not server:
        return Simulation(api)
    place = urlsplit(server).netloc
    return RealApi(
        api, server=server, secrets=secrets, http=HttpConfig(allow_private=(place,)) if place else HttpConfig()
    )


async def _play(
    policy: PolicyConfig, options: LiveOptions, kept: Path, ready: Sequence[tuple[Record, Backend, tuple[str, ...]]]
) -> list[Played]:
    """Attempt what is not in the log yet, API after API."""
    clients: list[KeptClient] = []
    client = None
    if isinstance(policy, EndpointConfig | VllmConfig):
        client = kept_client(policy, kept / "replies.jsonl", clients)
    user = ScriptedUser()
    if options.user is not None:
        user = ModelUser(kept_client(options.user, kept / "user-replies.jsonl", clients))
    same: Policy | None = None
    played: list[Played] = []
    for record, backend, secrets in ready:
        executor = api_executor(backend, user, retrieval="retrieval" in (record.get("external_tools") or ()))
        if client is not None and isinstance(policy, EndpointConfig | VllmConfig):
            one: Policy = EndpointPolicy(
                "policy", client, CorpusFormat(), executor.catalog, mode=policy.mode, system=policy.system
            )
        else:
            one = same or _built(policy, executor.catalog)
            same = one if isinstance(policy, LocalConfig) else None
        played.append(await _attempts(record, secrets, executor, one, options, kept))
    for asked in clients:
        await asked.close()
    return played


def _built(policy: PolicyConfig, catalog: Catalog) -> Policy:
    import torch

    return policy.build("policy", CorpusFormat(), catalog, gpu=torch.cuda.is_available())()


async def _attempts(
    record: Record, secrets: tuple[str, ...], executor: Any, policy: Policy, options: LiveOptions, kept: Path
) -> Played:
    name = str(record["Name"])
    tools = tuple(spec.name for spec in executor.catalog.specs())
    tasks = [
        Task(id=f"{name}-{number}", prompt=str(text), tools=tools, labels={"api": name})
        for number, text in enumerate(record["Instructions"], start=1)
    ]
    log: Log[Group] = Log(kept / "attempts.jsonl", Group)
    known = {group.task.id: group for group in log.read() if not unreached(group.episodes[0])}
    source = Source(
        name="policy",
        policy="policy",
        sampling=Sampling(temperature=options.temperature, max_tokens=options.max_tokens),
    )
    gate = asyncio.Semaphore(options.at_once)

    async def one(task: Task) -> Group:
        async with gate:
            return await attempted(
                task, policy, executor, CorpusFormat(), source=source, seed=options.seed, max_turns=options.max_turns
            )

    fresh = await asyncio.gather(*(one(task) for task in tasks if task.id not in known))
    if fresh:
        with log:
            log.append(fresh)
    known |= {group.task.id: group for group in fresh}
    groups = tuple(known[task.id] for task in tasks)
    content = {**record, "Instances": [instance_record(Instance(task=g.task, episode=g.episodes[0])) for g in groups]}
    slug = "".join(sign if sign.isalnum() else "-" for sign in name.lower())
    write_text(kept / "instances" / f"{slug}.json", json.dumps([content], ensure_ascii=False, indent=1))
    return Played(record=record, secrets=secrets, groups=groups)


def _scored(played: Sequence[Played], level: Level, notes: list[str]) -> dict[str, Any]:
    """The rule's figures over the attempts that could be made."""
    right, answered, calls, good, lost = 0, 0, 0, 0, 0
    n = 0
    for api in played:
        reasons = [why for group in api.groups if (why := unreached(group.episodes[0]))]
        if reasons:
            lost += len(reasons)
            notes.append(f"{api.name}: {len(reasons)} requests were not reached and are not scored: {reasons[0][:200]}")
        required = {
            one.name: one.parameters.get("required", ()) for one in read_openapi(api.record["Documentation"]).operations
        }
        for group, gold in zip(api.groups, api.record["Golden_Answers"], strict=True):
            episode = group.episodes[0]
            if unreached(episode):
                continue
            told = Instruction(text=group.task.prompt, required=required, secrets=api.secrets)
            expected = [read_gold(call["Action"], call["Action_Input"]) for call in gold]
            done = episode.stop == "answer" and bool(episode.answer)
            n += 1
            answered += done
            right += done and process_correct(expected, steps_of(episode), told, level)
            calls += len(episode.calls)
            good += sum(seen.ok for seen in episode.observations)
    shares = {"procedure_by_rule": right, "answered": answered}
    return {
        **{name: round(100 * count / n, 2) if n else None for name, count in shares.items()},
        "good_calls": round(100 * good / calls, 2) if calls else None,
        "level": level,
        "n": n,
        "unreached": lost,
    }


async def _judge(config: EndpointConfig, played: Sequence[Played], kept: Path, seed: int) -> dict[str, Any]:
    """What the model says of the attempts that could be made; its file is one that ``--judged`` reads."""
    client = KeptClient(config.endpoint(), kept / "judge-replies.jsonl")
    gate = asyncio.Semaphore(config.concurrency)

    async def one(api: Played, place: int) -> dict[str, Any]:
        group = api.groups[place]
        case = Case(
            documentation=str(api.record.get("NLDocumentation", "")),
            instruction=group.task.prompt,
            gold=api.record["Golden_Answers"][place],
            episode=group.episodes[0],
        )
        async with gate:
            return await judged(client, case, place, seed=seed)

    asked = [
        (api, place) for api in played for place, group in enumerate(api.groups) if not unreached(group.episodes[0])
    ]
    rows = await asyncio.gather(*(one(*pair) for pair in asked), return_exceptions=True)
    await client.close()
    by_api: dict[str, list[Any]] = {}
    for (api, _), row in zip(asked, rows, strict=True):
        if isinstance(row, BaseException):
            if isinstance(row, ApprenticeError):
                raise ApprenticeError(f"the judge could not be asked: {row}; what it said before is in {client.path}")
            raise row
        by_api.setdefault(api.name, []).append(row)
    path = kept / "judged.json"
    write_text(path, written(by_api))
    figures = recount(read_judged(path))
    return {name: figures[name] for name in ("procedure", "response", "overall", "errors")} | {"judged": str(path)}
