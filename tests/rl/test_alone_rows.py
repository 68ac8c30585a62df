"""Learning some tokens of a frozen model: those move, and nothing else does."""

from dataclasses import replace

import torch

from rl.data.examples import Example, Row
from rl.learner import checkpoint
from rl.learner.alone import AloneJob, fit_alone
from rl.learner.learner import Stage
from rl.learner.schedule import OptimiserConfig
from rl.losses.objective import Sft
from rl.models.load import load_model
from rl.models.tiny import build_model, build_tokenizer


def test_only_the_rows_that_are_named_move(tmp_path):
    tokenizer = build_tokenizer(["abc"], vocab_size=300, max_length=32)
    start = checkpoint.begin(tmp_path, build_model(len(tokenizer), width=16, layers=1, heads=2), tokenizer)
    row = Row(ids=(7, 8, 9), mask=(True,) * 3, reward=1.0, called=True)
    job = AloneJob(
        start=str(start),
        folder=str(tmp_path / "rows"),
        examples=(Example("t", (1, 5), (row,)),),
        stage=Stage(
            name="rows", objective=Sft(), optimiser=OptimiserConfig(kind="adamw", lr=0.02, weight_decay=0.0), steps=2
        ),
        batch_size=1,
        seed=0,
        rows=(7, 9),
    )
    before = load_model(start).state_dict()

    def moved(job: AloneJob) -> tuple[set[int], set[str]]:
        after = load_model(tmp_path / job.folder / "step-2").state_dict()
        name = "model.embed_tokens.weight"
        rows = (before[name] != after[name]).any(1).nonzero().flatten().tolist()
        return set(rows), {key for key in before if key != name and not torch.equal(before[key], after[key])}

    fit_alone(job)
    rows, others = moved(job)
    assert rows == {7, 9} and others <= {"lm_head.weight"}  # tied: the same rows once more
    whole = replace(job, folder=str(tmp_path / "whole"), rows=())
    fit_alone(whole)
    rows, others = moved(whole)
    assert len(rows) > 2 and len(others) > 1
