"""How runs are served: what of a run's folder the endpoint needs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from rich.console import Console

from executors.catalog import Catalog
from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.types import ToolSpec
from rl.config import validate
from rl.data.explored import in_modes
from rl.models.load import load_tokenizer
from rl.models.tool_head import token_of
from rl.recipes.executors import ExecutorBuilder
from rl.recipes.parts import TriceConfig
from rl.recipes.ste_config import SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolalpaca_tools import ApiExecutorBuilder, read_apis
from rl.recipes.toolgen_attempts import ToolGenOpener, catalog_of, read_tokens
from rl.recipes.toolgen_config import ToolGenConfig
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rl.recipes.toolkengpt_prompts import prompts
from rl.run import Run
from rl.serving.app import LlmOptions, Served, serve_run
from rl.serving.chat import REPLY
from rl.serving.offering import Offering
from rl.serving.policies import LocalPolicy
from rl.serving.published import BEST, NEWEST, Published
from rl.serving.repl import converse
from rl.serving.split import read_shares
from rl.serving.toolken import ToolkenPolicy
from rl.serving.weights import Opener
from rollouts.formats import Format
from rollouts.formats.toolken import ToolkenFormat
from rollouts.instances import CorpusFormat
from rollouts.policy import Policy

_LOOK_EVERY = 1.0
"""Seconds between looks at a run's folder."""
_TOOL_TIMEOUT = 30.0
"""Seconds of a call, of runs whose config says nothing of it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for beside the runs."""

    checkpoint: str = "best"
    """That answers by default: ``best``, ``newest``, or its name."""
    follow: bool = False
    """Whether to take newer ones as they are published."""
    keep: int = 1
    """Further models kept in memory."""
    execute: bool = False
    """Whether clients may have the tools run here."""
    adapters: tuple[str, ...] = ()
    """Further LoRA adapters, each as ``NAME=FOLDER``."""
    llm: bool = False
    """Whether ``ray.serve.llm`` holds the weights."""
    options: tuple[str, ...] = ()
    """Of its engine, each as ``NAME=VALUE``."""
    replicas: int = 1
    """Of it."""

    def engine(self) -> LlmOptions | None:
        """How ``ray.serve.llm`` is to run the models; None where it is not.

        Raises:
            ConfigError: an option is written wrongly, or nothing reads it.
        """
        if not self.llm:
            if self.options or self.replicas > 1:
                raise ConfigError(
                    "--engine-option and --replicas are read with --engine llm alone; add it, or leave them out"
                )
            return None
        pairs = [text.partition("=") for text in self.options]
        wrong = next(("".join(pair) for pair in pairs if not all(pair)), None)
        if wrong is not None:
            raise ConfigError(f"--engine-option {wrong!r} has to read NAME=VALUE, such as max_model_len=4096")
        return LlmOptions(replicas=self.replicas, engine={name: yaml.safe_load(value) for name, _, value in pairs})

    def folders(self) -> dict[str, Path]:
        """The adapters' folders by name. Raises ConfigError where one is not so written."""
        pairs = [text.partition("=") for text in self.adapters]
        wrong = next(("".join(pair) for pair in pairs if not all(pair)), None)
        if wrong is not None:
            raise ConfigError(f"--adapter {wrong!r} has to read NAME=FOLDER, such as terse=adapters/terse")
        return {name: Path(folder) for name, _, folder in pairs}


def serve_runs(runs: Sequence[Path], wanted: Wanted, *, split: str | None, host: str, port: int) -> None:
    """Serve runs until Ctrl-C, one or several side by side.

    Raises:
        ConfigError, DataError, ServingError: see ``serve_run``, and where the options do not fit together.
    """
    names = [str(Run.open(run).config().get("name", run.name)) for run in runs]
    if len(set(names)) < len(names):
        names = [run.resolve().name for run in runs]
    served = [_served(name, run, wanted) for name, run in zip(names, runs, strict=True)]
    shares = read_shares(split, names)
    serve_run(*served, split=shares, host=host, port=port, logs=Run(runs[0]).folder("logs").resolve())


def chat_with(path: Path, checkpoint: str = "best") -> None:
    """Answer questions from standard input with a run's policy, whose tools are really run.

    Raises:
        ConfigError, DataError: the run has no such policy, or none that can be asked.
    """
    opened = open_run(path)
    found = Published(opened.checkpoints, opened.chosen(checkpoint), staged=opened.staged).default()
    if opened.opener is None:
        policy: Policy = LocalPolicy(found.id, str(found.path), found.version, gpu=torch.cuda.is_available())()
    else:
        policy = opened.opener(found.path, found.version)
    converse(
        policy,
        opened.format,
        opened.builder(),
        sampling=REPLY,
        max_turns=opened.max_turns,
        console=Console(),
        offering=opened.offering,
    )


def _served(name: str, path: Path, wanted: Wanted) -> Served:
    opened = open_run(path)
    return Served(
        name=name,
        checkpoints=opened.checkpoints,
        checkpoint=opened.chosen(wanted.checkpoint),
        staged=opened.staged,
        format=opened.format,
        catalog=opened.catalog,
        offering=opened.offering,
        opener=opened.opener,
        executor=opened.builder if wanted.execute else None,
        max_turns=opened.max_turns,
        adapters=wanted.folders(),
        keep=wanted.keep,
        follow=_LOOK_EVERY if wanted.follow else None,
        llm=wanted.engine(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a run's policy needs to be asked."""

    checkpoints: Path
    """Their folder."""
    choice: str | None = None
    """The checkpoint that can be asked, where that is but one."""
    staged: bool = False
    """Whether each stage has a folder of its own among them."""
    format: Format
    catalog: Catalog
    offering: Offering = Offering()
    """What else it can be offered, and which tools where nothing is said of them."""
    builder: Callable[[], Executor]
    """Of what runs its tools."""
    max_turns: int
    opener: Opener | None = None
    """What loads it, where it is not a model as transformers knows it."""

    def chosen(self, checkpoint: str) -> str:
        """The checkpoint that answers, where one is asked for.

        Raises:
            ConfigError: it is another than the only one that can be asked.
        """
        if self.choice is not None and checkpoint not in (BEST, NEWEST, self.choice):
            raise ConfigError(
                f"the checkpoint {checkpoint!r} cannot be asked: of this run only checkpoints/{self.choice} can; leave "
                "--checkpoint out"
            )
        return self.choice or checkpoint


def open_run(path: Path) -> Opened:
    """A run's policy, whichever recipe made it.

    Raises:
        ConfigError: the run's config is none of a recipe's, or its policy answers no questions.
        DataError: the folder is no run, or a part of it is missing.
    """
    run = Run.open(path)
    recipe = str(run.config().get("recipe"))
    openers = {"trice": _trice, "ste": _ste, "toolalpaca": _toolalpaca, "toolkengpt": _toolken, "toolgen": _toolgen}
    if recipe not in openers:
        raise ConfigError(f"{path} is a run of {recipe!r}, which is no recipe here: {', '.join(openers)}")
    return openers[recipe](run)


def _trice(run: Run) -> Opened:
    config = validate(run.config(), TriceConfig, str(run.resolved))
    catalog = config.tasks.catalog()
    return Opened(
        checkpoints=(run.path / "checkpoints").resolve(),
        format=config.format.build(),
        catalog=catalog,
        builder=ExecutorBuilder(catalog, config.rollouts.tool_timeout),
        max_turns=config.rollouts.max_turns,
    )


def _ste(run: Run) -> Opened:
    """An STE run's policies: by default the one that passed the gate, with all of the run's tools."""
    config = validate(run.config(), SteConfig, str(run.resolved))
    catalog, exploitation = config.catalog(), config.exploitation
    format = config.format.build()
    return Opened(
        checkpoints=(run.path / "checkpoints").resolve(),
        staged=True,
        format=in_modes(format) if exploitation.modes else format,
        catalog=catalog,
        builder=ExecutorBuilder(catalog, _TOOL_TIMEOUT),
        max_turns=max(config.exploration.max_turns, 2 if exploitation.responses else 1),
    )


def _toolalpaca(run: Run) -> Opened:
    """A ToolAlpaca run's policy, with the simulated APIs of its corpus or any tools that a request describes."""
    config = validate(run.config(), ToolAlpacaConfig, str(run.resolved))
    apis = read_apis(run)
    return Opened(
        checkpoints=(run.path / "checkpoints").resolve(),
        staged=True,
        format=CorpusFormat(),
        catalog=apis.catalog,
        offering=Offering(others=True, chosen=apis.chosen),
        builder=ApiExecutorBuilder(apis.catalog),
        max_turns=config.max_turns,
    )


@dataclass(frozen=True, slots=True)
class ToolkenOpener:
    """Loads a merged ToolkenGPT checkpoint as a policy in its two modes."""

    name: str
    format: ToolkenFormat
    specs: tuple[ToolSpec, ...]
    demonstrations: Mapping[str, str] | None
    """By tool, what tool mode reads before a question; the format's own template by default."""
    bias: float
    """Added to tools' logits."""

    def __call__(self, path: Path, version: int) -> ToolkenPolicy:
        """Load it."""
        engine = LocalPolicy(self.name, str(path), version, gpu=torch.cuda.is_available())()
        vocabulary = engine.tokenizer.get_vocab()
        tokens = {spec.name: vocabulary[token_of(spec.name)] for spec in self.specs}
        return ToolkenPolicy(
            engine, tokens, self.specs, self.format, demonstrations=self.demonstrations, bias=self.bias
        )


def _toolken(run: Run) -> Opened:
    """A ToolkenGPT run's policy, as its last rows and the bias that suited them make it."""
    config = validate(run.config(), ToolkenGptConfig, str(run.resolved))
    if config.data.kind == "virtualhome":
        raise ConfigError(f"{run.path} writes plans by a rule that reads scenes; its figures are in evaluation/")
    merged, summary = run.path / "checkpoints" / "merged", run.path / "evaluation" / "summary.json"
    if not merged.is_dir() or not summary.is_file():
        raise DataError(f"{run.path} is not finished; 'apprentice train' with --resume goes on with it")
    data = config.data.load()
    shown = prompts(config, data, str(load_tokenizer(merged).bos_token or ""))
    bias = float(json.loads(summary.read_text())["learned"]["bias"])
    return Opened(
        checkpoints=(run.path / "checkpoints").resolve(),
        choice=merged.name,
        format=shown.format,
        catalog=data.catalog,
        builder=ExecutorBuilder(data.catalog, _TOOL_TIMEOUT),
        max_turns=config.max_calls,
        opener=ToolkenOpener(config.name, shown.format, tuple(data.catalog.specs()), shown.demonstrations, bias),
    )


def _toolgen(run: Run) -> Opened:
    """A ToolGen run's policy, whose replies are whole calls; with an adapter, the model that it is worked into."""
    config = validate(run.config(), ToolGenConfig, str(run.resolved))
    data, tokens = config.data.load(), read_tokens(run, config)
    catalog = catalog_of(data)
    opener = ToolGenOpener(config.name, tokens, tuple(catalog.specs()), config.attempts)
    return Opened(
        checkpoints=(run.path / "checkpoints").resolve(),
        choice=None if config.model.adapter is None else "merged",
        format=opener.format,
        catalog=catalog,
        builder=ExecutorBuilder(catalog, _TOOL_TIMEOUT),
        max_turns=config.attempts.max_turns,
        opener=opener,
    )
