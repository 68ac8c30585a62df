"""Learning a tool head: ``python -m benchmarks.toolken [--epochs 3] [--width 96] [--relations 30]``.

An epoch as published (a pass of the frozen model for every text, then the gradient of the rows) against an epoch over
what one pass has kept, on FuncQA and on KAMEL, with the same texts, rows and steps. CPU-seconds of one thread.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from rl.data.spans import MarkedData, Targets, targets
from rl.data.tasks.funcqa import FuncQa
from rl.data.tasks.kamel import Kamel
from rl.learner.tool_head import HeadFit, fit_head, losses, read_places
from rl.models.tiny import build_model, build_tokenizer
from rl.models.tool_head import fresh_head, hidden_and_logits, joint_loss


def published_epoch(model, texts: list[Targets], weight: torch.Tensor, lr: float) -> float:
    """CPU-seconds of an epoch of one pass and one step a text."""
    rows = weight.clone().requires_grad_()
    adam = torch.optim.Adam([rows], lr=lr)
    began = time.process_time()
    for text in texts:
        with torch.no_grad():
            hidden, logits = hidden_and_logits(model, torch.tensor([text.ids[:-1]]))
        loss = joint_loss(logits[0], hidden[0], rows, torch.tensor(text.labels))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return time.process_time() - began


def compare(name: str, data: MarkedData, epochs: int, width: int) -> dict[str, object]:
    """Both ways on one data set, by turns."""
    tokenizer = build_tokenizer([text.text for text in data.train], vocab_size=2048, max_length=256)
    model = build_model(len(tokenizer), width=width, layers=2, heads=4, max_length=256, seed=0).eval()
    numbers = {tool: number for number, tool in enumerate(data.tools)}
    texts = [targets(text, tokenizer, numbers) for text in data.train]
    texts = [text for text in texts if len(text.ids) <= 256]
    head = fresh_head(data.tools, width, seed=0)
    began = time.process_time()
    places = read_places(model, texts, vocabulary=len(tokenizer))
    reading = time.process_time() - began
    slow, fast, batched = [], [], []
    for _ in range(epochs):
        slow.append(published_epoch(model, texts, head.weight, 1e-3))
        fast += [epoch.cpu_seconds for epoch in fit_head(head, places, HeadFit(epochs=1, batch_size=1))[1]]
        batched += [epoch.cpu_seconds for epoch in fit_head(head, places, HeadFit(epochs=1, batch_size=8))[1]]
    return {
        "data": name,
        "tools": len(data.tools),
        "texts": len(texts),
        "places": len(places),
        "tool_places": len(places.of_tools()),
        "reading_once": round(reading, 3),
        "published_epoch": round(statistics.median(slow), 3),
        "cached_epoch_one_text_a_step": round(statistics.median(fast), 4),
        "cached_epoch_eight": round(statistics.median(batched), 4),
        "times_cheaper": round(statistics.median(slow) / statistics.median(fast), 1),
        "times_cheaper_eight": round(statistics.median(slow) / statistics.median(batched), 1),
        "difference": difference(model, texts[:50], head.weight, len(tokenizer)),
    }


def difference(model, texts: list[Targets], weight: torch.Tensor, vocabulary: int) -> dict[str, float]:
    """The largest difference in loss and in gradient between both ways, text by text."""
    most = {"loss": 0.0, "gradient": 0.0}
    places = read_places(model, texts, vocabulary=vocabulary)
    for number, text in enumerate(texts):
        slow, fast = weight.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.no_grad():
            hidden, logits = hidden_and_logits(model, torch.tensor([text.ids[:-1]]))
        one = joint_loss(logits[0], hidden[0], slow, torch.tensor(text.labels))
        other = losses(fast, places.only(places.text == number)).mean()
        one.backward()
        other.backward()
        assert slow.grad is not None and fast.grad is not None
        most["loss"] = max(most["loss"], abs(float(one.detach() - other.detach())))
        most["gradient"] = max(most["gradient"], float((slow.grad - fast.grad).abs().max()))
    return most


def main() -> None:
    """Print one line of JSON for each data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--relations", type=int, nargs="*", default=[30, 234])
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = {"funcqa": FuncQa().load()} | {f"kamel-{n}": Kamel(relations=n).load() for n in options.relations}
    for name, data in sets.items():
        print(json.dumps(compare(name, data, options.epochs, options.width)))


if __name__ == "__main__":
    main()
