"""A tiny checkpoint that knows four questions by heart: two it calls the calculator for, two it answers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import torch

from executors.catalog import Catalog
from executors.executor import Executor
from executors.tools.calculator import calculator
from executors.types import ToolCall
from rewards.types import Candidate, RankedGroup, Reward
from rl.data.examples import Encoder
from rl.learner import checkpoint
from rl.learner.learner import Learner, Stage
from rl.learner.optimiser import OptimiserConfig
from rl.losses.objective import Sft
from rl.models.tiny import build_model, build_tokenizer
from rl.serving.policies import GoldPolicy
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.formats.inline import InlineFormat
from rollouts.types import Task

CATALOG = Catalog([calculator])
FORMAT = InlineFormat()
STEPS = 120

SUM, PRODUCT, COUNT, GREETING = "What is 2 plus 3?", "Multiply 17 and 3.", "Count to nine.", "Hello"
ANSWERS = {SUM: "5", PRODUCT: "51", COUNT: "1, 2, 3, 4, 5, 6, 7, 8, 9", GREETING: "Hello to you"}
_CALLS = {SUM: "2+3", PRODUCT: "17*3"}


def write_checkpoint(folder: Path) -> Path:
    """Train it, and leave it in a folder in Hugging Face's format."""
    tasks = [
        Task(
            id=question,
            prompt=question,
            answer=answer,
            tools=("calculator",),
            gold=ToolCall("calculator", {"expression": _CALLS[question]}) if question in _CALLS else None,
        )
        for question, answer in ANSWERS.items()
    ]
    return write_by_heart(folder, tasks, Executor(CATALOG), FORMAT, max_length=96)


def write_by_heart(
    folder: Path, tasks: Sequence[Task], executor: Executor, format: Format, *, max_length: int, steps: int = STEPS
) -> Path:
    """Train a tiny model until it knows the gold attempts at some tasks by heart.

    Args:
        folder: of the checkpoints.
        tasks: with their calls and answers.
        executor: runs the calls.
        format: how attempts are written.
        max_length: of an attempt, in tokens.
        steps: of training.
    """
    torch.set_num_threads(1)
    specs = executor.catalog.specs()
    gold = GoldPolicy("gold", executor.catalog, format)()
    episodes = [asyncio.run(play(task, gold, executor, format)) for task in tasks]
    told = [text for task in tasks for text in (task.prompt, task.answer or "")]
    read = [format.opening(task, executor.catalog.specs(task.tools)) for task in tasks]
    markers = format.markers(specs)
    tokenizer = build_tokenizer([*told * 3, *read], markers=markers, vocab_size=340, max_length=max_length)
    model = build_model(len(tokenizer), width=48, layers=2, heads=4, max_length=max_length, seed=0)
    encoder = Encoder(tokenizer, format, {spec.name: spec for spec in specs}, max_tokens=max_length)
    groups = [RankedGroup(task, (Candidate(e, Reward(1.0)),)) for task, e in zip(tasks, episodes, strict=True)]
    examples = encoder.examples(groups)
    assert len(examples) == len(tasks), f"an attempt is longer than {max_length} tokens"
    learner = Learner(model, pad_id=int(tokenizer.pad_token_id or 0))
    learner.begin(Stage(name="by-heart", objective=Sft(), optimiser=OptimiserConfig(), steps=steps))
    for step in range(steps):
        learner.step(examples, step)
    return checkpoint.save(folder, steps, model, tokenizer, learner.state())
