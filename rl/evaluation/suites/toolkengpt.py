"""ToolkenGPT's baselines, played: a model as it is answers FuncQA, GSM8K-XL, KAMEL or VirtualHome by a prompt alone.

Any policy will do: an endpoint, a model directory, a random agent. Calls that are written in an answer are really made.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from executors.errors import ConfigError
from executors.executor import Executor
from executors.replies import KeptClient
from executors.types import ToolCall
from rl.config import Strict
from rl.data.prompting import Method, Prompting
from rl.data.spans import MarkedData
from rl.data.tables import write_text
from rl.data.tasks.funcqa import FuncQa
from rl.data.tasks.gsm8k_xl import Gsm8kXl
from rl.data.tasks.kamel import Kamel
from rl.data.tasks.virtualhome import END, VirtualHome
from rl.evaluation.attempts import attempt_ratios, plan_ratios, relation_ratios
from rl.evaluation.intervals import Ratio
from rl.evaluation.suites.funcqa import marker_of, told
from rl.evaluation.suites.sitting import claim, kept_client
from rl.evaluation.toolken import answer_ratios
from rl.serving.endpoint import EndpointPolicy
from rl.serving.sources import EndpointConfig, LocalConfig, PolicyConfig, VllmConfig, VllmEngineConfig
from rollouts.formats.toolken import QUESTION, ToolkenFormat, spliced, written_arguments
from rollouts.policy import Policy, Source
from rollouts.store import Log
from rollouts.types import Episode, Group, Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig, require_played

_POLICY = "policy"
_SHORT = 30
"""Tokens of a reply on KAMEL, as published; 512 elsewhere."""


class BaselineOptions(Strict):
    """What is asked, how it is put, and who answers."""

    data: Annotated[FuncQa | Gsm8kXl | Kamel | VirtualHome, Field(discriminator="kind")] = FuncQa()
    questions: str | None = None
    """Which of the data's test sets; ``multi_hop`` of FuncQA's, for example. The first by default."""
    at_most: int | None = Field(default=None, gt=0)
    """Questions, the first so many; all by default."""
    method: Method = "react"
    shots: int | None = Field(default=None, ge=0)
    """Worked answers in the prompt, with ``icl`` for each tool; as published by default: 4, 1 a tool, 8 of others."""
    listed: int | None = Field(default=None, gt=0)
    """Tools in the lists of ``icl`` and ``descriptions``; 30 and 60 by default, as published."""
    template: str | None = None
    """A text file to stand for the prompt, with ``[QUESTION]`` in it; its answers are read as the method's are."""
    policy: PolicyConfig | None = None
    """Who answers, such as ``{kind: endpoint, base_url: ..., model: ...}`` or ``{kind: huggingface, path: ...}``."""
    kept: str | None = None
    """A folder for attempts and replies: an evaluation that stopped goes on where it was."""
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int | None = Field(default=None, gt=0)
    """Of one reply; by default 30 on KAMEL and 512 elsewhere, as published."""
    max_calls: int = Field(default=10, gt=0)
    """Of one answer; on KAMEL the first call ends it."""
    at_once: int = Field(default=16, gt=0)
    """Questions under way at the same time, of a model that is not behind an endpoint."""
    seed: int = 0


def baseline(options: BaselineOptions) -> dict[str, Any]:
    """Let a policy answer, and score it: figures by name, each with its interval, and notes.

    Questions that could not be put to the policy are asked again when the evaluation is run again, and not scored.

    Raises:
        ConfigError: no policy or folder is named, or the settings do not fit the data.
        DataError: the data set cannot be read.
        TooManyFailuresError: the policy could not be asked.
    """
    policy, kept = _named(options)
    data = options.data.load()
    name, tasks = _asked(data, options)
    marker = marker_of(name) if isinstance(options.data, FuncQa | Gsm8kXl) else ""
    format = _format(options, data, marker, policy)
    fields = {"policy", "kept", "at_once", "at_most"}
    claim(kept, policy, {**options.model_dump(mode="json", exclude=fields), "template": format.template})
    groups = asyncio.run(_played(options, policy, data, format, tasks, kept))
    require_played(groups)
    _write_log(kept / "inference.jsonl", groups)
    scored = [group for group in groups if group.episodes[0].stop != "failed"]
    ratios = _ratios(options, data, scored, marker)
    counts = {"n": len(scored), "unreached": len(groups) - len(scored)}
    limited = sum(group.episodes[0].stop == "prompt_limit" for group in scored)
    notes = [f"{limited} prompts were longer than the policy can read; they count as wrong"] if limited else []
    if lost := [group.episodes[0].error for group in groups if group.episodes[0].stop == "failed"]:
        notes.append(f"{len(lost)} questions were not reached and are not scored: {lost[0][:200]}")
    return told(ratios, counts) | {"notes": notes, "prompt": format.template}


def _named(options: BaselineOptions) -> tuple[PolicyConfig, Path]:
    """Who plays, and where it is kept; an endpoint is sent text."""
    if options.policy is None or options.kept is None:
        raise ConfigError("suite toolkengpt lets a policy answer by a prompt; say --set policy={...} --set kept=FOLDER")
    policy = options.policy
    if isinstance(policy, EndpointConfig | VllmConfig):
        if policy.mode == "tools" and "mode" in policy.model_fields_set:
            raise ConfigError("policy.mode: tools are told of in the prompt here, which is text; leave the mode out")
        policy = policy.model_copy(update={"mode": "text"})
    return policy, Path(options.kept)


def _asked(data: MarkedData, options: BaselineOptions) -> tuple[str, tuple[Task, ...]]:
    """The test set and its questions."""
    name = options.questions or next(iter(data.tests))
    if name not in data.tests:
        raise ConfigError(f"questions: {options.data.kind} has no test set {name!r}; it has {', '.join(data.tests)}")
    return name, data.tests[name][: options.at_most]


def _format(options: BaselineOptions, data: MarkedData, marker: str, policy: PolicyConfig) -> ToolkenFormat:
    """The prompt around each question, and how answers are read.

    Raises:
        ConfigError: there is no such prompt.
    """
    how = Prompting(method=options.method, shots=options.shots, listed=options.listed, marker=marker, seed=options.seed)
    plans = isinstance(options.data, VirtualHome)
    if plans and (options.method != "icl" or options.shots is not None or options.listed is not None):
        raise ConfigError(
            "method: VirtualHome's prompts have their tools and three worked plans in them; take method icl without "
            "shots and listed, and data.shots=false to leave the plans out"
        )
    if options.method == "zero_shot" and options.shots:
        raise ConfigError("shots: zero_shot shows none; take method cot")
    if options.template is not None:
        template = _read_template(Path(options.template))
    else:
        template = data.template if plans else how.template(data)
    if isinstance(policy, LocalConfig | VllmEngineConfig):
        template = _beginning(policy.path) + template
    ending = END if plans else "\n" + data.template.partition(QUESTION)[0].rstrip()
    return ToolkenFormat(template, marker=marker, inline=how.calls and not plans, ending=ending)


def _read_template(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"template: cannot read {path}: {error}") from error
    if QUESTION not in text:
        raise ConfigError(f"template: {path} has no {QUESTION}; write where the question stands")
    return text.rstrip("\n")


def _beginning(path: str) -> str:
    """The token that a model's texts begin with, which the engines do not add."""
    from rl.models.load import load_tokenizer

    return str(load_tokenizer(Path(path)).bos_token or "")


async def _played(
    options: BaselineOptions,
    policy: PolicyConfig,
    data: MarkedData,
    format: ToolkenFormat,
    tasks: Sequence[Task],
    kept: Path,
) -> list[Group]:
    """Attempt what is not in the log yet; every attempt is in it as soon as it is over."""
    log: Log[Group] = Log(kept / "attempts.jsonl", Group)
    known = {group.task.id: group for group in log.read() if group.episodes[0].stop != "failed"}
    clients: list[KeptClient] = []
    built = _built(policy, data, format, kept, clients)
    at_once = policy.concurrency if isinstance(policy, EndpointConfig | VllmConfig) else options.at_once
    worker = RolloutWorker(
        WorkerConfig(
            policies={_POLICY: lambda: built},
            executor=lambda: Executor(data.catalog),
            format=format,
            max_turns=1 if isinstance(options.data, Kamel) else options.max_calls + 1,
            seed=options.seed,
            episodes=at_once,
        )
    )
    most = options.max_tokens or (_SHORT if isinstance(options.data, Kamel) else 512)
    sampling = Sampling(temperature=options.temperature, max_tokens=most)
    source = Source(name=_POLICY, policy=_POLICY, sampling=sampling)
    try:
        with log:
            async for group in worker.stream([task for task in tasks if task.id not in known], [source], "baseline"):
                log.append([group])
                known[group.task.id] = group
    finally:
        for client in clients:
            await client.close()
    return [known[task.id] for task in tasks]


def _built(
    config: PolicyConfig, data: MarkedData, format: ToolkenFormat, kept: Path, clients: list[KeptClient]
) -> Policy:
    if isinstance(config, EndpointConfig | VllmConfig):
        client = kept_client(config, kept / "replies.jsonl", clients)
        return EndpointPolicy(_POLICY, client, format, data.catalog, mode="text", system=config.system)
    import torch

    config.check()
    return config.build(_POLICY, format, data.catalog, gpu=torch.cuda.is_available())()


def _ratios(options: BaselineOptions, data: MarkedData, groups: Sequence[Group], marker: str) -> dict[str, Ratio]:
    ratios = attempt_ratios(groups)
    if isinstance(options.data, Kamel):
        return ratios | relation_ratios(groups)
    if isinstance(options.data, VirtualHome):
        verbs = [tool for tool in data.tools if tool.startswith("[") and tool != END]
        return plan_ratios(groups, verbs)
    texts = [spliced(group.episodes[0].turns) for group in groups]
    answered = answer_ratios(texts, [str(group.task.answer) for group in groups], marker)
    return ratios | answered


def _write_log(path: Path, groups: Sequence[Group]) -> None:
    """The attempts as ToolkenGPT's inference leaves them, which ``--suite funcqa`` reads."""
    rows = [_log_row(number, group.task, group.episodes[0]) for number, group in enumerate(groups)]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _log_row(number: int, task: Task, episode: Episode) -> dict[str, Any]:
    made = zip(episode.calls, episode.observations, strict=True)
    return {
        "case_idx": number,
        "question": task.prompt,
        "func_calls": [
            f"<{call.tool}>({written_arguments(call)}) = {seen.content}"
            for call, seen in made
            if isinstance(call, ToolCall) and seen.ok
        ],
        "generation": spliced(episode.turns).replace("\n", "\\n"),
        "status": "success" if episode.finished else episode.error,
    }
