"""ToolGen: every tool a token, found by generating it (Wang et al., 2024), and what feedback on the tools found adds.

Three stages, each of which may be left out and is not done twice: the model learns which token a documentation stands
for, which tokens answer a request, and how attempts go. Then the paper ends. Here tools that were found for a training
request are ranked by whether they are those that answer it, and the policy is moved to rank them so.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from executors.retrieval import Index, text_of
from rl.data.examples import Example, Row
from rl.data.room import fitting
from rl.data.tasks.tool_requests import Query, Retrieval
from rl.data.toolgen import examples, told
from rl.evaluation.evaluate import summarise, write_summary
from rl.evaluation.intervals import Ratio, figures
from rl.evaluation.retrieval import nearest, recalled, retrieval_ratios
from rl.evaluation.seeds import write_ratios
from rl.learner import checkpoint
from rl.learner.alone import AloneJob
from rl.learner.footprint import Footprint
from rl.learner.learner import Stage
from rl.losses.objective import Sft
from rl.models.constrained import beam_search
from rl.models.load import build_tokenizer_for, build_weights, end_id, load_merged, load_tokenizer
from rl.models.sentences import SentenceEncoder
from rl.models.tool_tokens import FINISH, ToolTokens, add_tool_tokens
from rl.models.trie import Trie
from rl.progress import Progress
from rl.recipes.fitting import Fitter
from rl.recipes.joined import Joined
from rl.recipes.toolgen_attempts import TOKENS, ToolGenOpener, attempted, read_tokens
from rl.recipes.toolgen_config import Feedback, StageConfig, ToolGenConfig
from rl.recipes.toolgen_stages import conversations, foreign_tokens, tool_tokens, without_held_out
from rl.run import Run, write_json
from rollouts.formats.atomic import ACTION, AtomicFormat


@dataclass(frozen=True, slots=True)
class _State:
    """A model that is evaluated or learned further, and what its tools are called."""

    path: Path
    tokens: ToolTokens
    data: Retrieval
    format: AtomicFormat


def train(config: ToolGenConfig, run: Run, progress: Progress) -> dict[str, Any]:
    """Give the tools tokens, learn in three stages, find tools for held-out requests, improve, find them again.

    Returns:
        The summary that ``evaluation/summary.json`` holds.
    """
    with Joined(config.ray, run, progress) as cluster:
        return _train(config, run, progress, Fitter(config.learner, cluster, run, progress))


def _train(config: ToolGenConfig, run: Run, progress: Progress, fitter: Fitter) -> dict[str, Any]:
    if not config.fitting.gpu:
        torch.set_num_threads(1)
    data = config.data.load()
    with progress.stage(f"1. Tokens of {len(data.tools)} tools, {config.indexing}"):
        state, seconds = _begin(config, data, run)
        lessons = _lessons(config, state, progress)
    states: dict[str, dict[str, Ratio]] = {}
    extra: dict[str, Any] = {}
    asked = list(data.tools)[:: max(1, len(data.tools) // 300)]
    for name, learned in lessons.items():
        stage: StageConfig = getattr(config, name)
        with progress.stage(f"2. {name}: {stage.steps} steps on {len(learned)} conversations"):
            state = _fit(config, state, name, stage, learned, run, progress, fitter)
        if name == "memorisation":
            extra |= {f"{key}_at_first": value for key, value in memorisation(state, asked).items()}
    with progress.stage(f"3. {len(data.test)} held-out requests"):
        states["start"] = found_ratios(state, data.test, config.beams, gpu=config.fitting.gpu)
        extra |= memorisation(state, asked)
    if config.feedback is not None:
        with progress.stage(f"4. Feedback: {config.feedback.rounds} rounds"):
            for round in range(config.feedback.rounds):
                state = _improved(config, config.feedback, state, round, run, fitter)
        states["final"] = found_ratios(state, data.test, config.beams, gpu=config.fitting.gpu)
    states["bm25"] = bm25_ratios(data, data.test, config.beams)
    if config.encoder is not None:
        states["encoder"] = encoder_ratios(data, data.test, config.beams, SentenceEncoder(Path(config.encoder)))
    if config.attempts.tasks:
        with progress.stage(f"5. {config.attempts.tasks} attempts"):
            extra["attempts"] = _told(_attempts(config, state, run, "test"))
    if config.model.adapter is not None:
        export_merged(state.path, run.folder("checkpoints") / "merged")
    run.write_state(checkpoint=str(state.path))
    run.point_best(run.link_stage(state.path))
    extra |= {"tools": len(data.tools), "seed": config.seed, "adding_cpu_seconds": seconds}
    write_ratios(run.path, {"requests": states})
    summary = summarise(states, len(data.test), extra)
    write_summary(run, summary)
    return summary


def _told(ratios: Mapping[str, Ratio]) -> dict[str, dict[str, float]]:
    return {name: one.as_json() for name, one in figures(ratios).items()}


def _attempts(config: ToolGenConfig, state: _State, run: Run, split: str) -> dict[str, Ratio]:
    """What comes of attempts at the first requests of a split; see ``Attempts.tasks``."""
    specs = tuple(tool.spec for tool in state.data.tools.values())
    opener = ToolGenOpener(config.name, state.tokens, specs, config.attempts, offered=False)
    folder = run.folder("evaluation") / f"attempts-{state.path.parent.name}-{state.path.name}-{split}"
    queries = getattr(state.data, split)[: config.attempts.tasks]
    return attempted(opener, state.path, state.data, queries, folder)


def evaluate_run(run: Run, config: ToolGenConfig, path: Path, split: str) -> dict[str, Ratio]:
    """The figures of a run's checkpoint on held-out requests: finding tools, and attempts where the config has any.

    Args:
        run: its folder.
        config: its own.
        path: of the checkpoint.
        split: ``validation`` or ``test``.
    """
    data = config.data.load()
    state = _State(path, read_tokens(run, config), data, AtomicFormat())
    ratios = found_ratios(state, getattr(data, split), config.beams, gpu=config.fitting.gpu)
    tried = _attempts(config, state, run, split) if config.attempts.tasks else {}
    return ratios | {f"attempt_{name}": ratio for name, ratio in tried.items()}


def _begin(config: ToolGenConfig, data: Retrieval, run: Run) -> tuple[_State, float]:
    """The model with the tools' tokens, as step 0."""
    tokens = tool_tokens(config, data)
    format = AtomicFormat()
    folder = run.folder("checkpoints") / "tokens"
    seconds = 0.0
    if not (folder / "step-0" / "config.json").exists():
        texts = [*(told(tool) for tool in data.tools.values()), *(query.text for query in data.train)]
        tokenizer = build_tokenizer_for(config.model, texts, [ACTION])
        model = build_weights(config.model, tokenizer, config.seed)
        began = time.process_time()
        texts = list(tokens.texts.values()) if config.indexing == "atomic" else [FINISH]
        texts += foreign_tokens(config, data, tokens.texts)
        rows = list(add_tool_tokens(model, tokenizer, texts).values())
        seconds = time.process_time() - began
        checkpoint.begin(folder, model, tokenizer, adapter=config.model.adapter, seed=config.seed, rows=rows)
    write_json(run.path / TOKENS, dict(tokens.texts))
    return _State(folder / "step-0", tokens, data, format), round(seconds, 2)


def _lessons(config: ToolGenConfig, state: _State, progress: Progress) -> dict[str, list[Example]]:
    """What each stage learns from; stages that are left out are told.

    Raises:
        ConfigError: the model does not read most of a stage's conversations.
    """
    tokenizer, limit = load_tokenizer(state.path), config.model.max_length
    lessons: dict[str, list[Example]] = {}
    for name in ("memorisation", "retrieval", "agent"):
        steps = getattr(config, name).steps
        found = conversations(config, state.data, state.tokens.texts, name) if steps else []
        held = without_held_out(found, state.data)
        if left_out := len(found) - len(held):
            progress.line(f"{left_out} conversations of {name} ask what is held out, and are left out")
        if not held:
            progress.line(f"{name} is left out: " + ("there is nothing to learn" if steps else "it has 0 steps"))
            continue
        rows = examples(held, tokenizer)
        lessons[name] = fitting(rows, limit, f"conversations of {name}")
        if too_long := len(rows) - len(lessons[name]):
            progress.line(f"{too_long} conversations of {name} are longer than {limit} tokens and left out")
    return lessons


def _fitted(config: ToolGenConfig) -> dict[str, Any]:
    """How a fit holds the model."""
    adapter, fitting = config.model.adapter, config.fitting
    return {
        "gpu": fitting.gpu,
        "quantised": adapter is not None and adapter.kind == "qlora",
        "footprint": Footprint(precision=fitting.precision, gradient_checkpointing=fitting.gradient_checkpointing),
    }


def export_merged(path: Path, folder: Path) -> Path:
    """Write the model of a checkpoint with its adapter, new rows included, worked into its weights.

    Args:
        path: of the checkpoint.
        folder: a plain model's directory, for engines that know nothing of adapters.

    Returns:
        The folder.
    """
    load_merged(path).save_pretrained(folder)
    load_tokenizer(path).save_pretrained(folder)
    return folder


def _fit(
    config: ToolGenConfig,
    state: _State,
    name: str,
    stage: StageConfig,
    learned: Sequence[Example],
    run: Run,
    progress: Progress,
    fitter: Fitter,
) -> _State:
    """One stage, in its own folder; what is there already is not fitted again."""
    fitted = fitter.fit(
        AloneJob(
            start=str(state.path),
            folder=str(run.folder("checkpoints") / name),
            examples=tuple(learned),
            stage=Stage(name=name, objective=Sft(), optimiser=stage.optimiser, steps=stage.steps),
            batch_size=stage.batch_size,
            seed=config.seed,
            **_fitted(config),
        )
    )
    run.finish(name, {"loss": fitted.loss, "cpu_seconds": round(fitted.cpu_seconds, 1), "path": fitted.path})
    progress.line(f"loss {fitted.loss:.3f}, {fitted.cpu_seconds:.0f} CPU-seconds")
    return _State(Path(fitted.path), state.tokens, state.data, state.format)


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds tools for texts by generating them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tokens: ToolTokens
    names: tuple[str, ...]
    trie: Trie

    @classmethod
    def of(cls, path: Path, tokens: ToolTokens, names: Sequence[str], *, gpu: bool = False) -> "Finder":
        """With the model in a directory, among the named tools."""
        tokenizer = load_tokenizer(path)
        model: Any = load_merged(path).eval()
        return cls(model.cuda() if gpu else model, tokenizer, tokens, tuple(names), tokens.trie(tokenizer, list(names)))

    def prompt(self, text: str) -> list[int]:
        """What is read before a tool is named."""
        begin: Any = self.tokenizer.bos_token_id
        ids = self.tokenizer.encode(f"{text}{ACTION}", add_special_tokens=False)
        return [begin, *ids] if isinstance(begin, int) else ids

    def find(self, text: str, beams: int) -> list[str]:
        """The likeliest tools, best first; every one of them exists."""
        return [self.names[one.item] for one in beam_search(self.model, self.prompt(text), self.trie, beams)]

    @torch.inference_mode()
    def free(self, text: str, max_tokens: int = 24) -> str:
        """What the model names when nothing holds it."""
        ids = self.prompt(text)
        ends = {end_id(self.tokenizer)}
        written: list[int] = []
        for _ in range(1 if self.tokens.indexing == "atomic" else max_tokens):
            read = torch.tensor([ids + written], device=self.model.device)
            token = int(self.model(input_ids=read).logits[0, -1].argmax())
            if token in ends:
                break
            written.append(token)
        return str(self.tokenizer.decode(written)).strip()


def found_ratios(state: _State, queries: Sequence[Query], beams: int, *, gpu: bool = False) -> dict[str, Ratio]:
    """Retrieval measures of a checkpoint, and how often it names no tool without and with the constraint."""
    finder = Finder.of(state.path, state.tokens, list(state.data.tools), gpu=gpu)
    found = [finder.find(state.format.asked(query.text), beams) for query in queries]
    known = state.tokens.tools
    free = [finder.free(state.format.asked(query.text)) for query in queries]
    return retrieval_ratios(found, [query.wanted for query in queries]) | {
        "hallucinated": Ratio([float(text not in known) for text in free]),
        "hallucinated_constrained": Ratio([float(not set(names) <= set(state.data.tools)) for names in found]),
    }


def memorisation(state: _State, names: Sequence[str]) -> dict[str, float]:
    """Of some tools, how many their documentation leads to among all, and F1 averaged over them."""
    finder = Finder.of(state.path, state.tokens, list(state.data.tools))
    said = [next(iter(finder.find(f"{told(state.data.tools[name])}\n", 1)), None) for name in names]
    accuracy, f1 = recalled(said, names)
    return {"memorised": accuracy, "memorised_f1": f1}


def bm25_ratios(data: Retrieval, queries: Sequence[Query], depth: int) -> dict[str, Ratio]:
    """The same measures of the words that requests and tools share."""
    index, names = Index(text_of(tool.spec) for tool in data.tools.values()), list(data.tools)
    return _searched_ratios([[names[place] for place, _ in index.search(q.text, depth)] for q in queries], queries)


def encoder_ratios(
    data: Retrieval, queries: Sequence[Query], depth: int, encode: Callable[[Sequence[str]], np.ndarray]
) -> dict[str, Ratio]:
    """The same measures of vectors of requests and tools, by cosine."""
    known = encode([text_of(tool.spec) for tool in data.tools.values()])
    return _searched_ratios(nearest(encode([q.text for q in queries]), known, list(data.tools), depth), queries)


def _searched_ratios(found: Sequence[Sequence[str]], queries: Sequence[Query]) -> dict[str, Ratio]:
    """The measures of what is found by search, which names nothing that does not exist."""
    nothing = {name: Ratio([0.0] * len(queries)) for name in ("hallucinated", "hallucinated_constrained")}
    return retrieval_ratios(found, [query.wanted for query in queries]) | nothing


def _improved(config: ToolGenConfig, feedback: Feedback, state: _State, round: int, run: Run, fitter: Fitter) -> _State:
    """One round: find tools for every training request, rank them by whether they are wanted, follow the ranking."""
    finder = Finder.of(state.path, state.tokens, list(state.data.tools), gpu=config.fitting.gpu)
    ids = dict(zip(finder.names, state.tokens.ids(finder.tokenizer, finder.names), strict=True))
    end = end_id(finder.tokenizer)
    ranked: list[Example] = []
    for query in state.data.train:
        names = list(dict.fromkeys((*query.wanted, *finder.find(state.format.asked(query.text), feedback.found))))
        rows = [Row((*ids[n], end), (True,) * (len(ids[n]) + 1), float(n in query.wanted), True) for n in names]
        if len({row.reward for row in rows}) > 1:
            rows.sort(key=lambda row: -row.reward)
            ranked.append(Example(query.id, tuple(finder.prompt(state.format.asked(query.text))), tuple(rows)))
    if not ranked:
        run.log({"stage": "feedback", "round": round, "ranked": 0})
        return state
    fitted = fitter.fit(
        AloneJob(
            start=str(state.path),
            folder=str(run.folder("checkpoints") / f"feedback-{round + 1}"),
            examples=tuple(ranked),
            stage=Stage(
                name=f"feedback-{round + 1}",
                objective=feedback.objective,
                optimiser=feedback.optimiser,
                steps=feedback.steps,
            ),
            batch_size=feedback.batch_size,
            seed=config.seed + round,
            **_fitted(config),
        )
    )
    run.log({"stage": "feedback", "round": round, "ranked": len(ranked), "loss": fitted.loss})
    return _State(Path(fitted.path), state.tokens, state.data, state.format)
