"""The endpoint against ``transformers serve``, over HTTP: ``python -m benchmarks.serving [--rounds 3] [--flood 20]``.

One model with random weights, both servers on this machine at once, asked by turns. Every client streams one reply
after another: a preamble of 300 tokens that all share, a question of its own, 64 new tokens, greedy. The model writes
digits and never ends by itself, so that every character of a reply is a token and both servers write as many.

Told are tokens a second, the time to the first token (median and 95th percentile over all requests), and, since other
work on the machine disturbs clocks more than counters, tokens a CPU-second of each server's processes. ``--continuous``
has the peer batch continuously too. ``--flood S`` then lets 256 clients at once ask ours alone for S seconds: how each
request was answered, and the memory of all its processes, sampled all along.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

PREAMBLE = 300
"""Tokens that all prompts begin with."""
QUESTION = 12
TOKENS = 64
"""Of each reply."""
NAME = "served"


@dataclass(slots=True)
class Asked:
    """What came of some requests."""

    first: list[float] = field(default_factory=list)
    """Seconds to the first token of each."""
    tokens: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds of the server's processes."""
    statuses: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, float]:
        """The figures."""
        return {
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "tokens_per_cpu_second": round(self.tokens / max(self.cpu, 1e-9), 1),
            "first_median_ms": round(1000 * statistics.median(self.first), 1),
            "first_p95_ms": round(1000 * percentile(self.first, 0.95), 1),
        }


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that is asked."""

    name: str
    url: str
    model: str
    process: psutil.Process

    def family(self) -> list[psutil.Process]:
        """Its processes."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds that they have taken."""
        total = 0.0
        for process in self.family():
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += spent.user + spent.system
        return total

    def memory(self) -> float:
        """MiB that they hold for themselves."""
        total = 0
        for process in self.family():
            try:
                total += process.memory_full_info().uss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def write_model(folder: Path, width: int, layers: int) -> Path:
    """A model that writes digits, as a run would have left it, with a template that makes both read the same."""
    import torch

    from rl.learner import checkpoint
    from rl.models.tiny import build_model, build_tokenizer

    tokenizer = build_tokenizer(["0123456789"], markers=["Answer: "], vocab_size=300, max_length=1024)
    tokenizer.chat_template = "{{ messages[-1].content }}\n{% if add_generation_prompt %}Answer: {% endif %}"
    model = build_model(len(tokenizer), width=width, layers=layers, heads=4, max_length=1024, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embed" not in name:
                parameter.mul_(4)  # so that replies differ
        written: Any = model.get_input_embeddings().weight  # the output's too
        for token in range(len(tokenizer)):
            if not str(tokenizer.decode([token])).isdigit():
                written[token] = 0
    return checkpoint.save(folder, 1, model, tokenizer, {})


def serve_ours(folder: Path, port: int) -> None:
    """Serve until told to end; in a process of its own."""
    from executors.catalog import Catalog
    from rl.serving.app import Served, serve_run
    from rl.serving.gate import Limits
    from rollouts.formats.inline import InlineFormat

    policy = Served(name=NAME, checkpoints=folder, checkpoint="step-1", format=InlineFormat(), catalog=Catalog([]))
    serve_run(policy, port=port, limits=Limits(concurrency=256))


@contextmanager
def started(name: str, command: list[str], url: str, model: str, log: Path) -> Iterator[Peer]:
    """A server as long as it is asked."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **quiet})
        try:
            _wait(url, process, log)
            yield Peer(name, url, model, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(3000):
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None:
            raise SystemExit(f"a server ended before it answered:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    raise SystemExit(f"a server did not come up:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def body(peer: Peer, preamble: str, rng: random.Random) -> dict[str, Any]:
    """A request with a question that was not asked before."""
    question = "".join(rng.choice("0123456789") for _ in range(QUESTION))
    content = f"{preamble}{question}"
    messages = [{"role": "user", "content": content}]
    return {"model": peer.model, "messages": messages, "stream": True, "max_tokens": TOKENS, "temperature": 0}


async def ask(http: httpx.AsyncClient, peer: Peer, request: dict[str, Any], told: Asked) -> None:
    """One request, to the end of its stream."""
    began = time.perf_counter()
    first = None
    written = 0
    try:
        async with http.stream("POST", f"{peer.url}/v1/chat/completions", json=request) as answer:
            if answer.status_code != 200:
                await answer.aread()
                told.statuses[str(answer.status_code)] += 1
                return
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                for choice in json.loads(line[6:]).get("choices", ()):
                    if text := choice["delta"].get("content"):
                        first = time.perf_counter() - began if first is None else first
                        written += len(text.strip())
    except httpx.HTTPError as error:
        told.statuses[type(error).__name__] += 1
        return
    told.statuses["200"] += 1
    told.tokens += written
    told.first.append(first if first is not None else time.perf_counter() - began)


async def play(peer: Peer, clients: int, requests: int, seed: int) -> Asked:
    """Some clients, each with some requests one after another."""
    rng = random.Random(seed)
    preamble = "".join(rng.choice("0123456789") for _ in range(PREAMBLE))
    told = Asked()
    before, began = peer.cpu(), time.perf_counter()
    async with _client() as http:

        async def client() -> None:
            for _ in range(requests):
                await ask(http, peer, body(peer, preamble, rng), told)

        await asyncio.gather(*(client() for _ in range(clients)))
    told.seconds, told.cpu = time.perf_counter() - began, peer.cpu() - before
    if set(told.statuses) != {"200"}:
        raise SystemExit(f"{peer.name} answered {dict(told.statuses)}")
    return told


async def flood(peer: Peer, clients: int, seconds: float) -> dict[str, Any]:
    """Many clients at once for some time, and the memory meanwhile."""
    rng = random.Random(1)
    preamble = "".join(rng.choice("0123456789") for _ in range(PREAMBLE))
    told, memory = Asked(), [peer.memory()]
    over = time.monotonic() + seconds

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < over:
            before = told.statuses["200"]
            await ask(http, peer, body(peer, preamble, rng), told)
            if told.statuses["200"] == before:
                await asyncio.sleep(0.2)

    async def watch() -> None:
        while time.monotonic() < over:
            await asyncio.sleep(max(0.5, seconds / 60))
            memory.append(await asyncio.to_thread(peer.memory))

    began = time.monotonic()
    async with _client() as http:
        await asyncio.gather(watch(), *(client(http) for _ in range(clients)))
    third = max(1, len(memory) // 3)
    return {
        "clients": clients,
        "seconds": round(time.monotonic() - began, 1),
        "statuses": dict(told.statuses),
        "tokens_per_second": round(told.tokens / (time.monotonic() - began), 1),
        "first_p95_ms": round(1000 * percentile(told.first, 0.95), 1) if told.first else None,
        "memory_mib": {
            "before": round(memory[0]),
            "second_third": round(statistics.median(memory[third : 2 * third] or memory)),
            "last_third": round(statistics.median(memory[2 * third :])),
            "most": round(max(memory)),
        },
    }


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=300, limits=limits)


def table(rounds: dict[str, list[dict[str, float]]]) -> list[str]:
    """Medians with minimum and maximum over the rounds, and what one server has of the other."""
    names = list(rounds)
    lines = [f"{'':<24}" + "".join(f"{name:>32}" for name in names) + f"{'ratio':>10}"]
    for key in rounds[names[0]][0]:
        values = {name: [one[key] for one in rounds[name]] for name in names}
        cells = [f"{statistics.median(v):.1f} [{min(v):.1f}, {max(v):.1f}]" for v in values.values()]
        ours, theirs = (statistics.median(values[name]) for name in names)
        ratio = ours / theirs if key.startswith("tokens") else theirs / ours
        lines.append(f"{key:<24}" + "".join(f"{cell:>32}" for cell in cells) + f"{ratio:>9.1f}x")
    return lines


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=4, help="of each client in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--continuous", action="store_true", help="let the peer batch continuously")
    parser.add_argument("--flood", type=float, default=0.0, help="seconds of 256 clients at once, ours alone")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_ours(Path(options.serve[0]), int(options.serve[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = write_model(folder, options.width, options.layers)
        result = _measure(options, folder, model)
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def _measure(options: argparse.Namespace, folder: Path, model: Path) -> dict[str, Any]:
    ports = free_port(), free_port()
    mine = [sys.executable, "-m", "benchmarks.serving", "--serve", str(folder), str(ports[0])]
    theirs = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    theirs += ["--host", "127.0.0.1", "--port", str(ports[1]), "--device", "cpu", "--dtype", "float32"]
    theirs += ["--continuous-batching"] if options.continuous else []
    result: dict[str, Any] = {"load": os.getloadavg()[0], "cpus": os.cpu_count()}
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with started("apprentice", mine, urls[0], NAME, folder / "ours.log") as ours:
        with started("transformers serve", theirs, urls[1], str(model), folder / "theirs.log") as peer:
            rounds: dict[str, list[dict[str, float]]] = {ours.name: [], peer.name: []}
            for number in range(options.rounds + 1):  # the first warms both up
                for one in (ours, peer) if number % 2 else (peer, ours):
                    told = asyncio.run(play(one, options.clients, options.requests if number else 1, number))
                    if number:
                        rounds[one.name].append(told.told())
        for line in table(rounds):
            print(line)
        result["rounds"] = rounds
        if options.flood:
            result["flood"] = asyncio.run(flood(ours, 256, options.flood))
            print(json.dumps(result["flood"], indent=1))
    return result


if __name__ == "__main__":
    main()
