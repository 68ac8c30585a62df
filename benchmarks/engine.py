"""The engine against ``model.generate``, on the same prompts in one process: ``python -m benchmarks.engine``.

Two comparisons. *Direct*: greedy replies of a fixed length, one request an episode. *Spliced*: a reply, an observation
and a second reply; the peer has to read the whole episode again for the second reply, as a stateless endpoint does.
CPU-seconds and wall time; medians with minimum and maximum over repetitions, in alternating order.
"""

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import GenerationConfig

from rl.data.tasks.arithmetic import arithmetic_tasks
from rl.models.tiny import build_model, build_tokenizer
from rl.serving.engine import TransformersPolicy
from rollouts.policy import Request
from rollouts.types import Completion, Sampling, Task

TOKENS = 12
"""Of each reply."""
OBSERVATION = "1234.5\n"


class Contest:
    """One model, some prompts, and the two ways of answering them."""

    def __init__(self, episodes: int) -> None:
        tasks = arithmetic_tasks("train", episodes, seed=0)
        self.tokenizer = build_tokenizer((task.prompt for task in tasks), vocab_size=400)
        self.model = build_model(len(self.tokenizer), seed=0).eval()
        self.model.generation_config.eos_token_id = None
        self.policy = TransformersPolicy("engine", self.model, self.tokenizer)
        self.policy._ends = frozenset()  # every reply has its full length
        self.tasks = tasks
        self.prompts = [task.prompt + "\n" for task in tasks]

    def engine(self, turns: int) -> list[list[int]]:
        """Replies of our engine; all episodes at once, keys and values kept between turns."""

        async def play(index: int, task: Task) -> list[int]:
            segments: list[str | Completion] = [self.prompts[index]]
            replies: list[int] = []
            for _ in range(turns):
                request = Request(
                    task=task,
                    segments=tuple(segments),
                    session=str(index),
                    sampling=Sampling(max_tokens=TOKENS),
                )
                completion = await self.policy.complete(request)
                replies += completion.token_ids
                segments += [completion, OBSERVATION]
            self.policy.release(str(index))
            return replies

        async def everyone() -> list[list[int]]:
            return await asyncio.gather(*(play(index, task) for index, task in enumerate(self.tasks)))

        return asyncio.run(everyone())

    def generate(self, turns: int) -> list[list[int]]:
        """Replies of ``model.generate``, left-padded in one batch; every turn reads its whole episode."""
        encode: Callable[[str], list[int]] = lambda text: self.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
        read = [encode(prompt) for prompt in self.prompts]
        replies: list[list[int]] = [[] for _ in read]
        config = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
        for _ in range(turns):
            width = max(map(len, read))
            ids = torch.tensor([[0] * (width - len(row)) + row for row in read])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in read])
            with torch.inference_mode():
                out: Any = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            for index, row in enumerate(out[:, width:].tolist()):
                replies[index] += row
                read[index] = read[index] + row + encode(OBSERVATION)
        return replies


def measure(contest: Contest, repetitions: int) -> dict[str, float]:
    """Named figures: for each comparison the peer's cost over ours, and our tokens a second."""
    figures: dict[str, float] = {}
    for name, turns in (("direct", 1), ("spliced", 2)):
        ways = {"engine": contest.engine, "generate": contest.generate}
        answers = {way: play(turns) for way, play in ways.items()}  # also the warm-up
        same = sum(a == b for a, b in zip(answers["engine"], answers["generate"], strict=True))
        figures[f"{name}/same_replies"] = same / len(contest.tasks)
        cpu: dict[str, list[float]] = {way: [] for way in ways}
        wall: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repetitions):
            for way, play in ways.items():
                began = (time.process_time(), time.perf_counter())
                play(turns)
                cpu[way].append(time.process_time() - began[0])
                wall[way].append(time.perf_counter() - began[1])
        for kind, spent in (("cpu", cpu), ("wall", wall)):
            ratios = [peer / ours for peer, ours in zip(spent["generate"], spent["engine"], strict=True)]
            figures[f"{name}/generate_over_engine_{kind}"] = statistics.median(ratios)
            figures[f"{name}/generate_over_engine_{kind}_min"] = min(ratios)
            figures[f"{name}/generate_over_engine_{kind}_max"] = max(ratios)
        tokens = len(contest.tasks) * TOKENS * turns
        figures[f"{name}/engine_tokens_per_cpu_second"] = tokens / statistics.median(cpu["engine"])
    return figures


def main() -> None:
    """Measure at several numbers of concurrent episodes and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", default="1,16,64,256")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one object of named figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        f"{episodes}/{name}": round(value, 3)
        for episodes in map(int, arguments.episodes.split(","))
        for name, value in measure(Contest(episodes), arguments.repetitions).items()
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<48} {value:10.3f}")


if __name__ == "__main__":
    main()
