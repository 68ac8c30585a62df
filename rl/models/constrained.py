"""Decoding among the tools that there are: constraints for an engine's replies, and beam search for retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rl.models.trie import Trie


class ToolConstraint:
    """Allows one of a trie's sequences and then an end; before that, free text up to where the tool begins.

    One serves one reply, see ``rollouts.policy.Constraint``.
    """

    def __init__(self, trie: Trie, ends: Sequence[int], *, marker: Sequence[int] = ()) -> None:
        """
        Args:
            trie: of the tools that may be named.
            ends: tokens that may follow a tool; one that ends the reply.
            marker: tokens behind which a tool comes, such as those of ``Action:``; without any, it comes at once.
        """
        self._trie = trie
        self._ends = np.array(sorted(ends), dtype=np.int64)
        self._marker = tuple(marker)
        self._read = 0
        self._node: int | None = None if self._marker else 0

    @property
    def item(self) -> int | None:
        """Which of the trie's sequences has been written; None as long as none has."""
        return None if self._node is None else self._trie.item(self._node)

    def allowed(self, ids: Sequence[int]) -> np.ndarray | None:
        """The tokens that may come; None where any may."""
        if len(ids) < self._read:
            self._read, self._node = 0, None if self._marker else 0
        for place in range(self._read, len(ids)):
            if self._node is not None:
                self._node = self._trie.step(self._node, int(ids[place]))
            elif self._marker and tuple(ids[place + 1 - len(self._marker) : place + 1]) == self._marker:
                self._node = 0
                self._marker = ()
        self._read = len(ids)
        if self._node is None:
            return None if self._marker else self._ends
        if self._trie.item(self._node) is None:
            return self._trie.allowed(self._node)
        return np.union1d(self._trie.children(self._node), self._ends)


@dataclass(frozen=True, slots=True)
class Found:
    """A tool that beam search came to."""

    item: int
    """Which of the trie's sequences."""
    logprob: float
    """Of the whole sequence, under the model as it is."""


@torch.inference_mode()
def beam_search(model: PreTrainedModel, prompt: Sequence[int], trie: Trie, beams: int = 5) -> list[Found]:
    """The likeliest sequences of a trie after a prompt, best first.

    Every sequence is scored by the tokens that it is; those of equal length are compared fairly, a longer one has more
    to answer for, as in the original. A trie of single tokens is searched exactly, in one pass.

    Args:
        model: a causal one.
        prompt: what it has read.
        trie: what may be generated.
        beams: sequences that are followed at once, and found at most.
    """
    device = model.device
    out = model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=True)
    cache: Any = out.past_key_values
    logprobs = out.logits[:, -1].float().log_softmax(-1)
    nodes, scores, found = [0], [0.0], list[Found]()
    while nodes:
        grown = _grown(trie, nodes, scores, logprobs, beams)
        nodes, scores, parents, tokens = [], [], list[int](), list[int]()
        for score, parent, token, node in grown:
            if (item := trie.item(node)) is not None:
                found.append(Found(item, score))
            if len(trie.children(node)):
                nodes.append(node)
                scores.append(score)
                parents.append(parent)
                tokens.append(token)
        found = sorted(found, key=lambda one: (-one.logprob, one.item))[:beams]
        if not nodes or (len(found) == beams and found[-1].logprob >= max(scores)):
            break
        cache.reorder_cache(torch.tensor(parents, device=device))
        out = model(input_ids=torch.tensor(tokens, device=device)[:, None], past_key_values=cache, use_cache=True)
        logprobs = out.logits[:, -1].float().log_softmax(-1)
    return found


def _grown(
    trie: Trie, nodes: Sequence[int], scores: Sequence[float], logprobs: Tensor, beams: int
) -> list[tuple[float, int, int, int]]:
    """The best ways on: score, beam, token, node."""
    grown: list[tuple[float, int, int, int]] = []
    for beam, (node, score) in enumerate(zip(nodes, scores, strict=True)):
        allowed = trie.allowed(node)
        values = logprobs[beam, torch.from_numpy(allowed).to(logprobs.device)]
        best, places = values.topk(min(beams, len(allowed)))
        for value, place in zip(best.tolist(), places.tolist(), strict=True):
            token = int(allowed[place])
            to = trie.step(node, token)
            assert to is not None
            grown.append((score + value, beam, token, to))
    return sorted(grown, key=lambda way: (-way[0], way[3]))[:beams]
