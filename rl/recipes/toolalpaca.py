"""ToolAlpaca: a corpus of tool use from a list of APIs alone (Tang et al., 2023), learned, measured, and improved.

APIs are made up from the list's entries, requests are planned from their schemas, and three parties make the attempts:
an assistant, a user, and a simulation in the API's place. What passes the filter is learned. Then the paper ends. Here
the policy attempts requests to the APIs that it learned from, is judged by rule, and follows what was judged better.

Every stage leaves files, and what is there is not made again.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from executors.corpus.records import Record, read_records
from executors.corpus.toolset import toolset
from executors.errors import ConfigError
from executors.openapi.tools import Api, read_openapi
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ScriptedUser
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.corpus import CorpusApi
from rl.data.examples import Encoder, Example
from rl.data.room import fitting
from rl.data.segments import Segments, example, first_call, refusal, segments, write_segments
from rl.data.tables import write_text, written
from rl.evaluation.evaluate import summarise, write_summary
from rl.evaluation.intervals import Ratio
from rl.evaluation.simulated_apis import Judgement, Request, judge, play_requests, ratios, requests_of
from rl.learner import checkpoint
from rl.learner.alone import AloneJob
from rl.learner.learner import Stage
from rl.models.load import build_tokenizer_for, build_weights, load_tokenizer
from rl.progress import Progress
from rl.recipes.fitting import Fitter
from rl.recipes.joined import Joined
from rl.recipes.toolalpaca_config import CopyingConfig, ImprovementConfig, LearningConfig, ToolAlpacaConfig
from rl.recipes.toolalpaca_corpus import CorpusWriter
from rl.recipes.toolalpaca_tools import Distractors, corpus_of
from rl.run import Run
from rl.serving.policies import LocalPolicy
from rollouts.instances import CorpusFormat, generate
from rollouts.instructions import Style, planned_instructions
from rollouts.plans import Planner
from rollouts.policy import Source
from rollouts.store import Log
from rollouts.types import Group, Sampling, Task

_FORMAT = CorpusFormat()
_SHEET = 10
"""Requests that are made up together: the rules hold among them."""


def train(config: ToolAlpacaConfig, run: Run, progress: Progress) -> dict[str, Any]:
    """Make a corpus, learn it, and measure the policy on APIs that are not in it, before and after.

    Returns:
        The summary that ``evaluation/summary.json`` holds.
    """
    with Joined(config.ray, run, progress) as cluster:
        return _train(config, run, progress, Fitter(config.learner, cluster, run, progress))


def _train(config: ToolAlpacaConfig, run: Run, progress: Progress, fitter: Fitter) -> dict[str, Any]:
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    with progress.stage(f"1. Corpus: {config.corpus.apis} APIs and {config.corpus.held_out} held out"):
        writer = CorpusWriter(config, run)
        learned_from, held_out = writer.records()
        corpus = writer.instances(learned_from)
        costs = writer.costs
        examples, left_out = _learned(config, corpus, run)
    progress.line(
        f"{sum(len(one.instances) for one in corpus)} instances, {len(examples)} learned, left out: {left_out}"
    )
    requests = _held_out(config, held_out)
    states: dict[str, dict[str, Ratio]] = {}
    start = run.folder("checkpoints") / "step-0"
    with progress.stage(f"2. {len(requests)} held-out requests, before"):
        states["base"] = _measured(config, "base", start, requests, run)
    with progress.stage(f"3. Learn: {config.learning.steps} steps"):
        path, copied = _copying(config, start, corpus, run, fitter)
        path, spent = _fit(config, "learn", path, examples, config.learning, run, fitter)
    with progress.stage("4. Held-out requests, after"):
        states["start"] = _measured(config, "start", path, requests, run)
    if config.improvement is not None:
        with progress.stage(f"5. Improve: {config.improvement.rounds} rounds"):
            for round in range(config.improvement.rounds):
                path = _improved(config, config.improvement, path, corpus, round, run, progress, fitter)
        states["final"] = _measured(config, "final", path, requests, run)
    else:
        states["final"] = states["start"]
    run.point_best(run.link_stage(path))
    extra = {"seed": config.seed, "left_out": left_out, "learned": len(examples), "fit_cpu_seconds": copied + spent}
    summary = summarise(states, len(requests), extra | costs)
    write_summary(run, summary)
    return summary


def evaluate_run(run: Run, config: ToolAlpacaConfig, path: Path, split: str, name: str) -> dict[str, Ratio]:
    """The figures of a run's checkpoint on the requests to its held-out APIs.

    Args:
        run: its folder.
        config: its own.
        path: of the checkpoint.
        split: ``test``; there is no other.
        name: that the verdicts are kept under.

    Raises:
        ConfigError: another split is asked for.
        DataError: the run has no corpus yet.
    """
    if split != "test":
        raise ConfigError(f"{run.path} is a run of toolalpaca, which holds out test requests alone; leave --split out")
    requests = _held_out(config, read_records(corpus_of(run))[config.corpus.apis :])
    return _measured(config, name, path, requests, run)


def _learned(config: ToolAlpacaConfig, corpus: Sequence[CorpusApi], run: Run) -> tuple[list[Example], dict[str, int]]:
    """What passes the filter, as tokens; the tokenizer and the first weights are made on the way."""
    left_out: Counter[str] = Counter()
    rows: dict[str, Segments] = {}
    drawn = _distractors(config, corpus)
    for api in corpus:
        for instance in api.instances:
            if reason := refusal(instance.episode):
                left_out[reason] += 1
                continue
            beside = drawn.beside(api.api, instance.task.id)
            specs = [tool.spec for tool in toolset(Simulation(api.api), ScriptedUser(), beside=beside)]
            rows[instance.task.id] = segments(instance.task, instance.episode, specs, _FORMAT)
    write_segments(run.folder("corpus") / "train.json", rows.values())
    folder = run.folder("checkpoints")
    if not (folder / "step-0" / "config.json").exists():
        texts = [row.text for row in rows.values()]
        tokenizer = build_tokenizer_for(config.model, texts, _FORMAT.markers([]))
        weights = build_weights(config.model, tokenizer, config.seed)
        checkpoint.begin(folder, weights, tokenizer, adapter=config.model.adapter, seed=config.seed)
    tokenizer = load_tokenizer(folder / "step-0")
    examples = [example(id, row, tokenizer) for id, row in rows.items()]
    kept = fitting(examples, config.model.max_length, "attempts of the corpus")
    if len(kept) < len(examples):
        left_out[f"longer than {config.model.max_length} tokens"] = len(examples) - len(kept)
    return kept, dict(left_out)


def _distractors(config: ToolAlpacaConfig, corpus: Sequence[CorpusApi]) -> Distractors:
    return Distractors([one.api for one in corpus], config.corpus.distractors, config.seed)


def _held_out(config: ToolAlpacaConfig, records: Sequence[Record]) -> list[Request]:
    """The requests to held-out APIs."""
    apis = [read_openapi(record["Documentation"]) for record in records]
    drawn = Distractors(apis, config.corpus.distractors, config.seed)
    requests: list[Request] = []
    for record, api in zip(records, apis, strict=True):
        name = str(record["Name"])
        count, beside = config.corpus.test_requests, drawn.beside(api, name)
        requests += _requests(config, name, api, count, config.seed, beside)
    return requests


def _requests(
    config: ToolAlpacaConfig, name: str, api: Api, count: int, seed: int, beside: Sequence[Simulation]
) -> list[Request]:
    """Requests to an API, with what the expected attempts come to in the worlds of a seed."""
    simulation = Simulation(api)
    asked = planned_instructions(name, Planner(name, api.operations, config.seed), count, style=config.corpus.style)
    groups = asyncio.run(generate(name, asked, simulation, seed=seed, beside=beside))
    required = {one.name: one.parameters.get("required", ()) for one in api.operations}
    return requests_of(name, simulation, asked, {group.task.id: group for group in groups}, required, beside)


def _measured(
    config: ToolAlpacaConfig, name: str, path: Path, requests: Sequence[Request], run: Run
) -> dict[str, Ratio]:
    """The figures of a checkpoint; its verdicts are kept, and not made twice."""
    kept = run.folder("evaluation") / f"{name}.json"
    if not kept.exists():
        judged, groups = _judged(config, path, requests, "measure", temperature=0.0, seed=config.seed)
        log: Log[Group] = Log(kept.with_suffix(".jsonl"), Group)
        log.path.unlink(missing_ok=True)
        with log:
            log.append(groups)
        rows = [
            {
                "task": group.task.id,
                "request": group.task.prompt,
                "answer": group.episodes[0].answer,
                "text": group.episodes[0].text,
                **{field: getattr(one, field) for field in Judgement.__dataclass_fields__},
            }
            for group, one in zip(groups, judged, strict=True)
        ]
        write_text(kept, written(rows))
    rows = json.loads(kept.read_text(encoding="utf-8"))
    return ratios([Judgement(**{field: row[field] for field in Judgement.__dataclass_fields__}) for row in rows])


def _judged(
    config: ToolAlpacaConfig, path: Path, requests: Sequence[Request], name: str, *, temperature: float, seed: int
) -> tuple[list[Judgement], list[Group]]:
    policy = LocalPolicy("live", str(path), gpu=torch.cuda.is_available())()
    sampling = Sampling(temperature=temperature, max_tokens=config.max_tokens)
    source = Source(name=name, policy="live", sampling=sampling)
    groups = play_requests(requests, policy, _FORMAT, source=source, seed=seed, max_turns=config.max_turns)
    return [judge(one, group.episodes[0]) for one, group in zip(requests, groups, strict=True)], groups


def _copying(
    config: ToolAlpacaConfig, start: Path, corpus: Sequence[CorpusApi], run: Run, fitter: Fitter
) -> tuple[Path, float]:
    """Copying first, where the config has that: first calls of the script's, behind the user's words alone."""
    copying = config.learning.copying
    if copying is None:
        return start, 0.0
    done = run.folder("checkpoints") / "copying" / f"step-{copying.steps}"
    if (known := run.finished("copying")) is not None and checkpoint.is_complete(done):
        return done, known["cpu_seconds"]
    tokenizer = load_tokenizer(start)
    made: list[Example] = []
    for api in corpus:
        specs = [tool.spec for tool in toolset(Simulation(api.api), ScriptedUser())]
        share = -(-copying.instances // len(corpus))
        for number in range(0, share, _SHEET):
            seed = config.seed + 1000 + number
            for group in _attempts(api, min(_SHEET, share - number), seed, config.corpus.style):
                if not refusal(group.episodes[0]):
                    row = first_call(segments(group.task, group.episodes[0], specs, _FORMAT), _FORMAT)
                    made.append(example(f"{group.task.id}/{seed}", row, tokenizer))
    fit = fitting(made, config.model.max_length, "first calls")
    return _fit(config, "copying", start, fit, copying, run, fitter)


def _attempts(api: CorpusApi, count: int, seed: int, style: Style) -> list[Group]:
    """The script's attempts at requests to an API, other ones for every seed."""
    asked = planned_instructions(api.name, Planner(api.name, api.api.operations, seed), count, style=style)
    return asyncio.run(generate(api.name, asked, Simulation(api.api), seed=seed))


def _fit(
    config: ToolAlpacaConfig,
    name: str,
    start: Path,
    examples: Sequence[Example],
    learning: LearningConfig | CopyingConfig,
    run: Run,
    fitter: Fitter,
) -> tuple[Path, float]:
    """Behaviour cloning; what is fitted already is not fitted again."""
    stage = Stage(name=name, objective=learning.objective, optimiser=learning.optimiser, steps=learning.steps)
    fitted = fitter.fit(
        AloneJob(
            start=str(start),
            folder=str(run.folder("checkpoints") / name),
            examples=tuple(examples),
            stage=stage,
            batch_size=learning.batch_size,
            seed=config.seed,
            gpu=torch.cuda.is_available(),
            quantised=_quantised(config),
        )
    )
    run.finish(name, {"loss": fitted.loss, "cpu_seconds": round(fitted.cpu_seconds, 1), "path": fitted.path})
    return Path(fitted.path), round(fitted.cpu_seconds, 1)


def _quantised(config: ToolAlpacaConfig) -> bool:
    adapter = config.model.adapter
    return adapter is not None and adapter.kind == "qlora"


def _improved(
    config: ToolAlpacaConfig,
    improvement: ImprovementConfig,
    path: Path,
    corpus: Sequence[CorpusApi],
    round: int,
    run: Run,
    progress: Progress,
    fitter: Fitter,
) -> Path:
    """One round: attempt requests to held-in APIs, judge by rule, follow the ranking."""
    folder = run.folder("checkpoints") / f"improve-{round + 1}"
    done = folder / f"step-{improvement.steps}"
    if (done / checkpoint.STATE).exists():
        return done
    chosen = [corpus[(round * 8 + place) % len(corpus)] for place in range(min(8, len(corpus)))]
    drawn = _distractors(config, corpus)
    tried = [one for api in chosen for one in _ranked(config, improvement, path, api, round, drawn)]
    rewards = [candidate.reward.value for group, _ in tried for candidate in group.candidates]
    usable = [made for group, made in tried if not group.tied and len(made.rows) > 1]
    mean = sum(rewards) / max(1, len(rewards))
    run.log({"stage": "improve", "round": round, "ranked": len(usable), "reward": float(f"{mean:.4f}")})
    if not usable:
        progress.line(f"round {round + 1}: no request with attempts of different worth; nothing is learned")
        return path
    stage = Stage(
        name=f"improve-{round + 1}",
        objective=improvement.objective,
        optimiser=improvement.optimiser,
        steps=improvement.steps,
    )
    fitted = fitter.fit(
        AloneJob(
            start=str(path),
            folder=str(folder),
            examples=tuple(usable),
            stage=stage,
            batch_size=improvement.batch_size,
            seed=config.seed + round,
            gpu=torch.cuda.is_available(),
            quantised=_quantised(config),
        )
    )
    return Path(fitted.path)


def _ranked(
    config: ToolAlpacaConfig,
    improvement: ImprovementConfig,
    path: Path,
    api: CorpusApi,
    round: int,
    drawn: Distractors,
) -> list[tuple[RankedGroup, Example]]:
    """The policy's attempts at some requests to one API, best first; each attempt is made in a world of its own."""
    share = max(1, improvement.requests // 8)
    beside = drawn.beside(api.api, f"{api.name}/{round}")
    specs = {tool.spec.name: tool.spec for tool in toolset(Simulation(api.api), ScriptedUser(), beside=beside)}
    encoder = Encoder(load_tokenizer(path), _FORMAT, specs, max_tokens=config.model.max_length)
    tried: dict[str, list[Candidate]] = {}
    tasks: dict[str, Task] = {}
    for attempt in range(improvement.attempts):
        seed = config.seed + 1000 * (round + 1) + attempt
        requests = _requests(config, api.name, api.api, share * (round + 1), seed, beside)[-share:]
        judged, groups = _judged(config, path, requests, "improve", temperature=improvement.temperature, seed=seed)
        for one, group in zip(judged, groups, strict=True):
            tasks[group.task.id] = group.task
            tried.setdefault(group.task.id, []).append(Candidate(group.episodes[0], Reward(one.reward)))
    ranked = []
    for id, candidates in tried.items():
        best_first = sorted(candidates, key=lambda candidate: -candidate.reward.value)
        group = RankedGroup(tasks[id], tuple(best_first))
        ranked.append((group, encoder.example(group)))
    return ranked
