"""ToolkenGPT: tools as tokens of a frozen model (Hao et al., 2023), and what execution feedback adds.

Only one row a tool is learned. The model reads the training texts once; the rows are a softmax regression on what it
kept. Then the paper ends. Here the policy goes on to attempt the training questions: tools whose calls came to the
answer become likelier where they were called, others less, and the model stays as it is.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from executors.executor import Executor
from rl.data.decisions import decided
from rl.data.examples import Example, Row
from rl.data.room import fitting, require_room
from rl.data.spans import MarkedData, Targets, targets
from rl.data.tasks.kamel import Kamel
from rl.data.tasks.virtualhome import END, VirtualHome, step_name
from rl.evaluation.attempts import (
    attempt_ratios,
    by_habit,
    by_words,
    plan_ratios,
    relation_ratios,
    right_answer,
    right_tool,
)
from rl.evaluation.evaluate import summarise, write_summary
from rl.evaluation.intervals import Ratio
from rl.evaluation.seeds import write_ratios
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.head_fit import HeadFit
from rl.learner.learner import Stage
from rl.learner.tool_head import Epoch, Places, fit_head, hits, read_places
from rl.losses.objective import Sft
from rl.models.load import TinyModel, build_tokenizer_for, build_weights, end_id, load_merged, load_tokenizer
from rl.models.tool_head import ToolHead, fresh_head, merged, output_matrix
from rl.progress import Progress
from rl.recipes.toolkengpt_config import Feedback, ToolkenGptConfig
from rl.recipes.toolkengpt_prompts import Prompts, calls_template, prompts
from rl.run import Run, write_json
from rl.serving.engine import TransformersPolicy
from rl.serving.toolken import PlanRule, ToolkenPolicy
from rollouts.formats.toolken import QUESTION, ToolkenFormat, called, spliced
from rollouts.policy import Policy, Source
from rollouts.store import Log
from rollouts.types import Episode, Group, Sampling, Task
from rollouts.worker import RolloutWorker, WorkerConfig

LIVE = "live"


@dataclass(frozen=True, slots=True)
class _Base:
    """The frozen model and what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    data: MarkedData
    prompts: Prompts

    @property
    def vocabulary(self) -> int:
        return len(self.tokenizer)

    @property
    def format(self) -> ToolkenFormat:
        """Of reasoning mode."""
        return self.prompts.format

    def encode(self, text: str) -> list[int]:
        """A text's tokens, nothing added."""
        return self.tokenizer.encode(text, add_special_tokens=False)


def train(config: ToolkenGptConfig, run: Run, progress: Progress) -> dict[str, Any]:
    """Freeze a model, learn the tools' rows, try them in two modes, and improve them by what their calls come to.

    Returns:
        The summary that ``evaluation/summary.json`` holds.
    """
    torch.set_num_threads(1)
    data = config.data.load()
    data = replace(data, tests={name: tasks[: config.questions] for name, tasks in data.tests.items()})
    with progress.stage(f"1. The frozen model: {len(data.train)} texts"):
        base = _base(config, data, run)
    with progress.stage(f"2. Rows of {len(data.tools)} tools"):
        head, bias, learned = _learn(config, base, run)
        progress.line(
            f"bias {bias:g}; F1 {learned['f1']:.3f} on validation texts; {learned['cpu_seconds_epoch']} s an epoch"
        )
    states: dict[str, dict[str, dict[str, Ratio]]] = {name: {} for name in data.tests}
    with progress.stage("3. Attempts in two modes"):
        policies: dict[str, tuple[Policy, ToolkenFormat]] = {"start": (_policy(config, base, head, bias), base.format)}
        policies["words"] = TransformersPolicy(LIVE, base.model, base.tokenizer), base.format
        if base.prompts.inline is not None:
            policies["inline"] = TransformersPolicy(LIVE, base.model, base.tokenizer), base.prompts.inline
        for state, (policy, format) in policies.items():
            _measure(config, base, policy, format, run, state, states)
    if config.feedback is not None and data.tasks:
        with progress.stage(f"4. Feedback: {config.feedback.rounds} rounds"):
            head = _improve(config, config.feedback, base, head, bias, run, progress)
        _measure(config, base, _policy(config, base, head, bias), base.format, run, "final", states)
    grown, wide, _ = merged(base.model, base.tokenizer, head)
    grown.save_pretrained(run.folder("checkpoints") / "merged")
    wide.save_pretrained(run.folder("checkpoints") / "merged")
    return _summary(config, base, states, learned | {"bias": bias}, run)


def _base(config: ToolkenGptConfig, data: MarkedData, run: Run) -> _Base:
    """A model from elsewhere as it is; one that is built here after it has read the training texts."""
    folder = run.folder("checkpoints") / "base"
    if isinstance(config.model, TinyModel):
        shown = [_shown(config, data, text) for text in data.demonstrations]
        texts = [*(text.text for text in data.train), *shown]
        if not (folder / "step-0").exists():
            tokenizer = build_tokenizer_for(config.model, texts, ())
            checkpoint.begin(folder, build_weights(config.model, tokenizer, config.seed), tokenizer)
        tokenizer = load_tokenizer(folder / "step-0")
        rows = [_row(tokenizer, text) for text in texts]
        job = AloneJob(
            start=str(folder / "step-0"),
            folder=str(folder),
            examples=tuple(fitting(rows, config.model.max_length, "training texts")),
            stage=Stage(
                name="language", objective=Sft(), optimiser=config.language.optimiser, steps=config.language.steps
            ),
            batch_size=config.language.batch_size,
            seed=config.seed,
        )
        path = Path(fit_alone(job).path)
    else:
        path = Path(config.model.path)
    tokenizer, model = load_tokenizer(path), load_merged(path).eval()
    model.requires_grad_(False)
    return _Base(model, tokenizer, data, prompts(config, data, str(tokenizer.bos_token or "")))


def _shown(config: ToolkenGptConfig, data: MarkedData, text: str) -> str:
    """A demonstration behind what tells it from a text without calls."""
    before = (config.template or data.template).partition(QUESTION)[0]
    return calls_template(config, data).partition(QUESTION)[0] + text.removeprefix(before)


def _row(tokenizer: PreTrainedTokenizerBase, text: str) -> Example:
    ids = tokenizer.encode(text, add_special_tokens=False)
    begin: Any = tokenizer.bos_token_id
    first, rest = ([begin], ids) if isinstance(begin, int) else (ids[:1], ids[1:])
    rest = [*rest, end_id(tokenizer)]
    return Example(text[:16], tuple(first), (Row(tuple(rest), (True,) * len(rest), 1.0, False),))


def _learn(config: ToolkenGptConfig, base: _Base, run: Run) -> tuple[ToolHead, float, dict[str, Any]]:
    """The rows, the bias that suits them, and what is told of both."""
    numbers = {name: number for number, name in enumerate(base.data.tools)}
    limit = config.model.max_length

    def read(texts: Sequence[Any]) -> Any:
        laid = [targets(text, base.tokenizer, numbers) for text in texts]
        require_room([len(text.labels) for text in laid], limit, "marked texts")
        short = [text for text in laid if len(text.labels) <= limit]
        return read_places(base.model, short, vocabulary=base.vocabulary)

    began = time.process_time()
    places, held_out = read(base.data.train), read(base.data.validation or base.data.train[-50:])
    reading = time.process_time() - began
    start = fresh_head(base.data.tools, output_matrix(base.model).shape[1], config.seed)
    fit = config.head.model_copy(update={"seed": config.seed})
    head, epochs = _fitted(start, places, fit, config.head_workers)
    bias = max(config.biases, key=lambda bias: (_or_zero(hits(head, held_out, bias)["all"].f1), -bias))
    found = hits(head, held_out, bias)
    per_tool = {name: {"precision": h.precision, "recall": h.recall, "f1": h.f1} for name, h in found.items()}
    write_json(run.folder("evaluation") / "tools.json", per_tool)
    size = head.save(run.folder("checkpoints") / "head").stat().st_size
    seconds = sum(epoch.cpu_seconds for epoch in epochs) / len(epochs)
    learned = {
        "f1": found["all"].f1,
        "places": len(places),
        "tool_places": len(places.of_tools()),
        "cpu_seconds_reading": round(reading, 3),
        "cpu_seconds_epoch": round(seconds, 4),
        "head_bytes": size,
    }
    return head, bias, learned


def _fitted(start: ToolHead, places: Places, fit: HeadFit, workers: int) -> tuple[ToolHead, list[Epoch]]:
    """The rows, learned here or by workers that each hold a part of the places."""
    if not workers:
        return fit_head(start, places, fit)
    from rl.learner.heads.remote import fit_head_sharded

    return fit_head_sharded(start, places, fit, workers)


def _or_zero(value: float) -> float:
    return value if value == value else 0.0


def _policy(config: ToolkenGptConfig, base: _Base, head: ToolHead, bias: float) -> ToolkenPolicy:
    rule = None
    if isinstance(config.data, VirtualHome):
        rule = PlanRule(head.names)
        head = ToolHead(tuple(map(step_name, head.names)), head.weight)
    grown, wide, ids = merged(base.model, base.tokenizer, head)
    engine = TransformersPolicy(LIVE, grown, wide)
    shown = base.prompts.demonstrations
    specs = base.data.catalog.specs()
    return ToolkenPolicy(engine, ids, specs, base.format, demonstrations=shown, bias=bias, rule=rule)


def _play(
    config: ToolkenGptConfig,
    data: MarkedData,
    policy: Policy,
    format: ToolkenFormat,
    tasks: Sequence[Task],
    round: str,
    source: Source,
) -> list[Group]:
    worker = RolloutWorker(
        WorkerConfig(
            policies={LIVE: lambda: policy},
            executor=lambda: Executor(data.catalog),
            format=format,
            max_turns=1 if isinstance(config.data, Kamel) else config.max_calls + 1,
            seed=config.seed,
            episodes=64,
        )
    )
    return asyncio.run(worker.play(tasks, [source], round))


def _measure(
    config: ToolkenGptConfig,
    base: _Base,
    policy: Policy,
    format: ToolkenFormat,
    run: Run,
    state: str,
    states: dict[str, dict[str, dict[str, Ratio]]],
) -> None:
    """Greedy attempts at every test task; kept, and not made again."""
    source = Source(name=LIVE, policy=LIVE, sampling=Sampling(max_tokens=config.max_tokens))
    for name, tasks in base.data.tests.items():
        log: Log[Group] = Log(run.folder("evaluation") / f"{state}-{name}.jsonl", Group)
        groups = list(log.read())
        if len(groups) != len(tasks):
            log.path.unlink(missing_ok=True)
            groups = _play(config, base.data, policy, format, tasks, f"{state}/{name}", source)
            log.append(groups)
        states[name][state] = _ratios(config, base.data, groups)


def _ratios(config: ToolkenGptConfig, data: MarkedData, groups: Sequence[Group]) -> dict[str, Ratio]:
    """The figures of attempts at one test set."""
    ratios = attempt_ratios(groups)
    if isinstance(config.data, Kamel):
        ratios |= relation_ratios(groups)
    elif isinstance(config.data, VirtualHome):
        ratios |= plan_ratios(groups, [tool for tool in data.tools if tool.startswith("[") and tool != END])
    return ratios


def evaluate_run(config: ToolkenGptConfig, policy: Policy, format: ToolkenFormat) -> dict[str, Ratio]:
    """The figures of a policy on every test set, each behind the set's name.

    Args:
        config: of the run that made it.
        policy: in two modes, as ``rl.recipes.served`` opens it.
        format: its format.
    """
    data = config.data.load()
    source = Source(name=LIVE, policy=LIVE, sampling=Sampling(max_tokens=config.max_tokens))
    found: dict[str, Ratio] = {}
    for name, tasks in data.tests.items():
        groups = _play(config, data, policy, format, tasks[: config.questions], f"evaluation/{name}", source)
        found |= {f"{name}_{key}": ratio for key, ratio in _ratios(config, data, groups).items()}
    return found


def _improve(
    config: ToolkenGptConfig, feedback: Feedback, base: _Base, head: ToolHead, bias: float, run: Run, progress: Progress
) -> ToolHead:
    """Attempt, weigh each choice by how much better its attempt was than the others at its task, learn the rows."""
    generator = torch.Generator().manual_seed(config.seed)
    sampling = Sampling(max_tokens=config.max_tokens, temperature=feedback.temperature)
    source = Source(name=LIVE, policy=LIVE, count=feedback.attempts, sampling=sampling)
    judge = _worth(config)
    for round in range(feedback.rounds):
        chosen = torch.randperm(len(base.data.tasks), generator=generator)[: feedback.tasks].tolist()
        tasks = [base.data.tasks[place] for place in chosen]
        policy = _policy(config, base, head, bias)
        groups = _play(config, base.data, policy, base.format, tasks, f"feedback/{round}", source)
        laid, weights, worth = _weighed(base, groups, judge, head.numbers)
        run.log({"stage": "feedback", "round": round, "worth": worth, "attempts": len(laid)})
        progress.line(f"round {round}: {worth:.3f} of the sampled attempts were worth it")
        if laid:
            places = read_places(base.model, laid, vocabulary=base.vocabulary)
            each = torch.tensor(weights)[places.text]
            fit = feedback.fit.model_copy(update={"seed": config.seed * 1000 + round})
            head, _ = fit_head(head, places, fit, weights=each)
            head.save(run.folder("checkpoints") / f"head-{round + 1}")
    return head


def _worth(config: ToolkenGptConfig) -> Callable[[Task, Episode], float]:
    """What an attempt is worth: a right answer that a call came to; where nothing is run, the right tool."""
    if isinstance(config.data, Kamel):
        return lambda task, episode: right_tool(task, called(episode))
    return lambda task, episode: float(episode.called) * right_answer(task, spliced(episode.turns))


def _weighed(
    base: _Base, groups: Sequence[Group], judge: Callable[[Task, Episode], float], numbers: Mapping[str, int]
) -> tuple[list[Targets], list[float], float]:
    laid: list[Targets] = []
    weights: list[float] = []
    every: list[float] = []
    for group in groups:
        played = [episode for episode in group.episodes if episode.finished]
        worth = [judge(group.task, episode) for episode in played]
        every += worth
        mean = sum(worth) / max(1, len(worth))
        for episode, value in zip(played, worth, strict=True):
            if value != mean:
                opening = base.format.opening(group.task, ())
                end = end_id(base.tokenizer)
                laid.append(decided(episode, opening, base.encode, numbers, vocabulary=base.vocabulary, end=end))
                weights.append(value - mean)
    return laid, weights, sum(every) / max(1, len(every))


def _summary(
    config: ToolkenGptConfig,
    base: _Base,
    states: Mapping[str, dict[str, dict[str, Ratio]]],
    learned: Mapping[str, Any],
    run: Run,
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    kept: dict[str, dict[str, Mapping[str, Ratio]]] = {}
    for name, tasks in base.data.tests.items():
        untrained: dict[str, Mapping[str, Ratio]] = {}
        if all(task.gold for task in tasks):
            untrained["bm25"] = {"tool": by_words(tasks, base.data.catalog.specs())}
            untrained["habit"] = {"tool": by_habit(tasks, base.data.train)}
        told[name] = summarise(states[name], len(tasks), summarise(untrained, len(tasks), {}))
        kept[name] = {**states[name], **untrained}
    write_ratios(run.path, kept)
    first = next(iter(told.values()))
    summary = {**first, "tests": told, "learned": dict(learned), "tools": len(base.data.tools), "seed": config.seed}
    write_summary(run, summary)
    return summary
