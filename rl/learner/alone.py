"""A fit on a fixed set of examples, without a Hub: peers, baselines, scripts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rl.data.examples import Example
from rl.learner import checkpoint
from rl.learner.footprint import Footprint
from rl.learner.learner import Learner, Stage
from rl.learner.rank import MAX_SKIPPED, DivergedError
from rl.learner.work import epochs
from rl.models.load import load_model, load_tokenizer, pad_id


@dataclass(frozen=True, slots=True, kw_only=True)
class AloneJob:
    """What to fit, on what, and where to leave it."""

    start: str
    """Model directory to begin from."""
    folder: str
    """The fitted model is written to ``folder/step-N``."""
    examples: tuple[Example, ...]
    stage: Stage
    batch_size: int
    seed: int
    gpu: bool = False
    """Whether it is fitted on this process's GPU."""
    quantised: bool = False
    """Whether the model, though not its adapter, is held in 4 bits; see ``rl.models.lora.quantisation``."""
    footprint: Footprint = Footprint()
    """What it takes; its strategy has to be ``ddp``, since there is one rank."""
    rows: tuple[int, ...] = ()
    """Tokens whose embeddings alone are learned, the model being frozen; all of it is learned without."""


@dataclass(frozen=True, slots=True)
class AloneResult:
    """Where the fitted model is, and what it cost."""

    path: str
    cpu_seconds: float
    tokens: int
    loss: float
    """At the last step."""


def fit_alone(job: AloneJob) -> AloneResult:
    """Fit a model from start to end in this process; what is there already is not fitted again."""
    done = Path(job.folder) / f"step-{job.stage.steps}"
    if (done / checkpoint.STATE).exists():
        state = checkpoint.load_state(done)
        return AloneResult(str(done), state["cpu_seconds"], state["tokens"], state["loss"])
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    tokenizer = load_tokenizer(Path(job.start))
    model = load_model(Path(job.start), quantised=job.quantised)
    if job.rows:
        learn_rows(model, job.rows)
    learner = Learner(model, pad_id=pad_id(tokenizer), footprint=job.footprint, gpu=job.gpu)
    learner.begin(job.stage)
    began = time.process_time()
    torch.manual_seed(job.seed)
    loss, skipped = float("nan"), 0
    for step, batch in enumerate(epochs(job.examples, job.batch_size, job.stage.steps, job.seed)):
        metrics = learner.step(batch, step)
        loss = metrics["loss"]
        skipped = skipped + 1 if "skipped" in metrics else 0
        if skipped == MAX_SKIPPED:
            raise DivergedError(
                f"the fit in {job.folder} had {skipped} steps in a row, the last of them step {step}, whose loss or "
                "gradient is not finite; look for rewards that are no numbers, else lower the learning rate"
            )
    spent = time.process_time() - began
    state = learner.state() | {"cpu_seconds": spent, "loss": loss}
    path = checkpoint.save(Path(job.folder), job.stage.steps, learner.model, tokenizer, state)
    return AloneResult(str(path), spent, learner.tokens, loss)


def learn_rows(model: PreTrainedModel, rows: Sequence[int]) -> None:
    """Freeze a model but for the embeddings of some tokens; where its head is tied to them, they are its rows too.

    Args:
        model: to be learned; with an optimiser that decays weights the other rows would still shrink.
        rows: token ids.
    """
    model.requires_grad_(False)
    table = model.get_input_embeddings().weight  # [V, d]
    assert isinstance(table, Tensor)
    table.requires_grad_(True)
    chosen = torch.zeros(len(table), 1, device=table.device)
    chosen[list(rows)] = 1.0
    table.register_hook(lambda gradient: gradient * chosen)
