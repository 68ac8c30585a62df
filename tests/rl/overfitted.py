"""A tiny checkpoint that knows four questions by heart: two it calls the calculator for, two it answers."""

import asyncio
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
    torch.set_num_threads(1)
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
    texts = [*ANSWERS, *ANSWERS.values()] * 3
    specs = CATALOG.specs()
    tokenizer = build_tokenizer(texts, markers=FORMAT.markers(specs), vocab_size=340, max_length=96)
    model = build_model(len(tokenizer), width=48, layers=2, heads=4, max_length=96, seed=0)
    encoder = Encoder(tokenizer, FORMAT, {spec.name: spec for spec in specs}, max_tokens=96)
    gold = GoldPolicy("gold", CATALOG, FORMAT)()
    episodes = [asyncio.run(play(task, gold, Executor(CATALOG), FORMAT)) for task in tasks]
    groups = [RankedGroup(task, (Candidate(e, Reward(1.0)),)) for task, e in zip(tasks, episodes, strict=True)]
    examples = encoder.examples(groups)
    learner = Learner(model, pad_id=int(tokenizer.pad_token_id))
    learner.begin(Stage(name="by-heart", objective=Sft(), optimiser=OptimiserConfig(), steps=STEPS))
    for step in range(STEPS):
        learner.step(examples, step)
    return checkpoint.save(folder, STEPS, model, tokenizer, learner.state())
