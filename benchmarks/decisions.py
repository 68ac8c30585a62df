"""How far length normalisation hides the decision to call, on a run's own ranked groups.

Of all pairs of candidates of which one calls, one answers, and the rewards differ: how often a checkpoint finds the
better one likelier by the mean log-probability of its tokens (RRHF's score), by that of the whole candidate, and by
that of the first token alone, which is the decision. A pair that is in order by the mean and out of order by the
decision is *hidden*: RRHF's hinge is zero there, though greedy decoding takes the wrong side.

    python -m benchmarks.decisions runs/trice-mixture step-1650 best
"""

import argparse
from pathlib import Path

import torch

from rl.data.examples import Encoder
from rl.data.rounds import RoundLog
from rl.learner.learner import Learner
from rl.losses.candidates import Candidates
from rl.models.load import load_model, load_tokenizer, pad_id
from rl.recipes.trained import open_trained

_BATCH = 16


def pairs(candidates: Candidates) -> dict[str, float]:
    """Counts over the pairs of different decisions and different rewards."""
    sums, lengths, first = candidates.sums(), candidates.lengths(), candidates.decisions()
    mean = sums / lengths.clamp(min=1)
    apart = candidates.better() & (candidates.called[:, :, None] != candidates.called[:, None, :])
    ordered = {name: score[:, :, None] > score[:, None, :] for name, score in (("mean", mean), ("sum", sums))}
    decided = first[:, :, None] > first[:, None, :]
    valid = candidates.valid
    return {
        "pairs": apart.sum().item(),
        "by_mean": (apart & ordered["mean"]).sum().item(),
        "by_sum": (apart & ordered["sum"]).sum().item(),
        "by_decision": (apart & decided).sum().item(),
        "hidden": (apart & ordered["mean"] & ~decided).sum().item(),
        "call_tokens": lengths[valid & candidates.called].sum().item(),
        "calls": (valid & candidates.called).sum().item(),
        "answer_tokens": lengths[valid & ~candidates.called].sum().item(),
        "answers": (valid & ~candidates.called).sum().item(),
    }


@torch.no_grad()
def measure(run: Path, checkpoint: str, groups: int) -> dict[str, float]:
    """The shares for one checkpoint, over the first groups of the run's log."""
    trained = open_trained(run, checkpoint)
    tokenizer = load_tokenizer(trained.checkpoint)
    specs = {spec.name: spec for spec in trained.catalog.specs()}
    encoder = Encoder(tokenizer, trained.format, specs, max_tokens=trained.config.model.max_length)
    learner = Learner(load_model(trained.checkpoint), pad_id=pad_id(tokenizer))
    learner.model.eval()
    records = [record.group for record, _ in zip(RoundLog(run).all(), range(groups), strict=False)]
    examples = encoder.examples(records)
    total: dict[str, float] = {}
    for start in range(0, len(examples), _BATCH):
        scored = learner.score(learner.lay_out(examples[start : start + _BATCH]))
        for name, count in pairs(scored).items():
            total[name] = total.get(name, 0) + count
    shares = {name: total[name] / total["pairs"] for name in ("by_mean", "by_sum", "by_decision", "hidden")}
    return shares | {
        "pairs": total["pairs"],
        "tokens_of_a_call": total["call_tokens"] / total["calls"],
        "tokens_of_an_answer": total["answer_tokens"] / total["answers"],
    }


def main() -> None:
    """Print a line for each checkpoint."""
    parser = argparse.ArgumentParser(description="How far length normalisation hides the decision to call.")
    parser.add_argument("run", type=Path)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--groups", type=int, default=480)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.checkpoints:
        figures = measure(chosen.run, name, chosen.groups)
        print(f"{name:<12}" + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
