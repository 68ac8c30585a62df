"""Decoding among 46,985 tools: ``python -m benchmarks.trie [--width 256] [--layers 4] [--rounds 5]``.

How long it takes to give a small model a token for each of ToolGen's tools, what a trie of them takes in memory, and
what a step of the engine costs when it may only name tools, against a free step of the same model; by turns, one reply
and eight at once. CPU-seconds of one thread.
"""

import argparse
import asyncio
import json
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch

from executors.names import Names
from rl.data.tasks.benchmark import data_folder
from rl.data.tasks.toolbench import virtual_tokens
from rl.models.constrained import ToolConstraint
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_tokens import ToolTokens, add_tool_tokens, index_tools
from rl.models.trie import Trie
from rl.serving.engine import TransformersPolicy
from rollouts.policy import Request
from rollouts.types import Sampling, Task

MARKER = "Action:"
SEMANTIC = "semantic: a name of several tokens"


def spent(work):
    """What a piece of work gives, and its CPU-seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


async def seconds_per_step(policy: TransformersPolicy, make, tokens: int, rows: int, number: int) -> float:
    """CPU-seconds of a step of so many replies at once, prompts read before."""
    requests = [
        Request(
            task=Task(id="t", prompt=""),
            segments=(f"find a tool for request {row} of {number}",),
            session=f"{number}/{row}/{tokens}",
            sampling=Sampling(temperature=1.0, max_tokens=tokens),
            constraint=make(),
            seed=row,
        )
        for row in range(rows)
    ]
    began, written = time.process_time(), policy.counts.written
    await asyncio.gather(*map(policy.complete, requests))
    took = time.process_time() - began
    for request in requests:
        policy.release(request.session)
    return took * rows / (policy.counts.written - written)


class Always:
    """A constraint that allows every tool at every step: the dearest that there is."""

    def __init__(self, trie: Trie) -> None:
        self.trie = trie

    def allowed(self, ids):
        """All of the trie's first tokens."""
        return self.trie.allowed(0)


def main() -> None:
    """Print lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    identities = virtual_tokens(data_folder("toolgen") / "virtual_tokens.txt")
    names, naming = spent(lambda: Names(identities))
    tools = {names[identity]: identity for identity in identities}
    tokenizer = build_tokenizer([i.raw for i in identities[:5000]], markers=[MARKER], vocab_size=2048, max_length=256)
    model = build_model(len(tokenizer), width=options.width, layers=options.layers, heads=8, max_length=256).eval()
    before = psutil.Process().memory_info().rss
    atomic: ToolTokens = index_tools(tools, "atomic")
    _, adding = spent(lambda: add_tool_tokens(model, tokenizer, list(atomic.texts.values())))
    grown = psutil.Process().memory_info().rss
    one, one_seconds = spent(lambda: atomic.trie(tokenizer))
    many, many_seconds = spent(lambda: index_tools(tools, "semantic").trie(tokenizer))
    print(
        json.dumps(
            {
                "tools": len(tools),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "naming_cpu_s": round(naming, 2),
                "adding_cpu_s": round(adding, 2),
                "memory_mib": round(grown / 2**20),
                "memory_of_adding_mib": round((grown - before) / 2**20),
                "atomic_trie": {"nodes": one.nodes, "bytes": one.num_bytes, "cpu_s": round(one_seconds, 2)},
                "semantic_trie": {"nodes": many.nodes, "bytes": many.num_bytes, "cpu_s": round(many_seconds, 2)},
            }
        )
    )
    policy = TransformersPolicy("p", model, tokenizer)
    end, marker = [int(tokenizer.eos_token_id)], tokenizer.encode(MARKER, add_special_tokens=False)  # type: ignore[arg-type]
    kinds = {
        "free": lambda: None,
        "agent: free text, then a tool": lambda: ToolConstraint(one, end, marker=marker),
        SEMANTIC: lambda: ToolConstraint(many, end),
        "atomic: every tool at every step": lambda: Always(one),
    }
    for rows in (1, 8):
        took = {kind: [] for kind in kinds}
        for number in range(options.rounds):
            for kind, make in kinds.items():
                if rows > 1 and kind == SEMANTIC:
                    continue  # names end one after the other, and a step of fewer rows costs more a row
                took[kind].append(asyncio.run(seconds_per_step(policy, make, 24, rows, number)))
        free = statistics.median(took["free"])
        for kind, times in took.items():
            if not times:
                continue
            median = statistics.median(times)
            pairs = statistics.median(t / f for t, f in zip(times, took["free"], strict=True))
            figures = {"rows": rows, "kind": kind, "ms_per_step": round(1000 * median, 3)}
            print(json.dumps({**figures, "over_free": round(median / free, 3), "over_free_paired": round(pairs, 3)}))


if __name__ == "__main__":
    main()
