"""Tools in the vocabulary (ToolGen, Wang et al. 2024): what text stands for each of them, both ways without loss.

``atomic``        one new token a tool, such as ``<<QRCheck&&quality>>``
``semantic``      the tool's name as text
``numeric``       its number, digit by digit
``hierarchical``  its path through a tree of descriptions that are alike, digit by digit
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from executors.errors import ConfigError, UnknownToolError
from executors.names import Identity
from executors.retrieval import words
from rl.models.choice import Indexing
from rl.models.tool_head import input_matrix, output_matrix
from rl.models.trie import Trie

FINISH = "<<Finish>>"
"""What ends an attempt; a token like a tool's."""
_BRANCHES = 10
_ROUNDS = 10
"""Of k-means."""
_FEATURES = 4096
_WIDTH = 64


@dataclass(frozen=True, slots=True)
class ToolTokens:
    """The text of each tool."""

    indexing: Indexing
    texts: Mapping[str, str]
    """By the tool's name; no two are alike."""

    def __post_init__(self) -> None:
        if len(set(self.texts.values())) != len(self.texts):
            raise ConfigError(
                f"{len(self.texts)} tools share {len(set(self.texts.values()))} texts; each needs its own"
            )

    @property
    def tools(self) -> dict[str, str]:
        """The way back: the tool of each text."""
        return {text: name for name, text in self.texts.items()}

    def tool(self, text: str) -> str:
        """Which tool a text stands for.

        Raises:
            UnknownToolError: none.
        """
        for name, known in self.texts.items():
            if known == text.strip():
                return name
        raise UnknownToolError(f"{text[:80]!r} stands for none of the {len(self.texts)} tools")

    def ids(self, tokenizer: PreTrainedTokenizerBase, names: Sequence[str] | None = None) -> list[list[int]]:
        """The tokens of the named tools, or of all, in order."""
        asked = [self.texts[name] for name in (self.texts if names is None else names)]
        if self.indexing == "atomic":
            vocabulary = tokenizer.get_vocab()
            if strange := [text for text in asked if text not in vocabulary]:
                raise ConfigError(f"the tokenizer has no token {strange[0]!r}; add the tools' tokens first")
            return [[vocabulary[text]] for text in asked]
        encoded: Any = tokenizer(asked, add_special_tokens=False)["input_ids"]
        return encoded

    def trie(self, tokenizer: PreTrainedTokenizerBase, names: Sequence[str] | None = None) -> Trie:
        """What may be generated: the named tools, or all of them."""
        return Trie(self.ids(tokenizer, names))


def label(identity: Identity) -> str:
    """How ToolGen writes a tool: what it belongs to and its own name."""
    return f"<<{identity.owner}&&{identity.raw}>>" if identity.owner else f"<<{identity.raw}>>"


def index_tools(
    tools: Mapping[str, Identity], indexing: Indexing, *, descriptions: Mapping[str, str] | None = None, seed: int = 0
) -> ToolTokens:
    """Choose the text of every tool.

    Args:
        tools: by name, who each is where it comes from.
        indexing: of which kind.
        descriptions: by name; for the hierarchical kind.
        seed: of its clusters.

    Raises:
        ConfigError: the hierarchical kind lacks a description.
    """
    names = list(tools)
    if indexing == "atomic":
        labels = [label(tools[name]) for name in names]
        alike = {text for text, count in Counter(labels).items() if count > 1}
        return ToolTokens(
            indexing,
            {n: f"<<{n}>>" if text in alike else text for n, text in zip(names, labels, strict=True)},
        )
    if indexing == "semantic":
        return ToolTokens(indexing, {name: name for name in names})
    if indexing == "numeric":
        digits = len(str(max(1, len(names) - 1)))
        return ToolTokens(indexing, {name: " ".join(f"{number:0{digits}d}") for number, name in enumerate(names)})
    told = descriptions or {}
    if lacking := [name for name in names if name not in told]:
        raise ConfigError(f"hierarchical indexing takes a description of every tool, and {lacking[0]!r} has none")
    paths = clustered([f"{name} {told[name]}" for name in names], seed)
    return ToolTokens(indexing, {name: " ".join(map(str, path)) for name, path in zip(names, paths, strict=True)})


def clustered(texts: Sequence[str], seed: int = 0) -> list[tuple[int, ...]]:
    """A path of digits for every text, with those that are alike on the same way: k-means within k-means.

    No path begins another. Texts that are the same word for word still part at the end.
    """
    features = _features(texts, seed)
    generator = np.random.default_rng(seed)
    paths: list[list[int]] = [[] for _ in texts]
    todo = [np.arange(len(texts))]
    while todo:
        members = todo.pop()
        if len(members) <= _BRANCHES:
            for digit, member in enumerate(members.tolist()):
                paths[member].append(digit)
            continue
        assigned = _k_means(features[members], generator)
        used = np.unique(assigned)
        if len(used) < 2:
            assigned = np.arange(len(members)) * _BRANCHES // len(members)
            used = np.unique(assigned)
        for digit, cluster in enumerate(used.tolist()):
            group = members[assigned == cluster]
            for member in group.tolist():
                paths[member].append(digit)
            todo.append(group)
    return [tuple(path) for path in paths]


def _features(texts: Sequence[str], seed: int) -> np.ndarray:
    """[N, 64] the words of each text, rare ones weighing more, thrown together at random; of length 1."""
    counted = [words(text) for text in texts]
    frequency: dict[str, int] = {}
    for said in counted:
        for word in set(said):
            frequency[word] = frequency.get(word, 0) + 1
    known = {word: number for number, word in enumerate(sorted(frequency))}
    directions = np.random.default_rng(seed).standard_normal((max(1, len(known)), _WIDTH)).astype(np.float32)
    features = np.zeros((len(texts), _WIDTH), dtype=np.float32)
    for row, said in enumerate(counted):
        if said:
            weights = np.array([math.log(1 + len(texts) / frequency[word]) for word in said], dtype=np.float32)
            features[row] = weights @ directions[[known[word] for word in said]]
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)


def _k_means(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[N] which of ten clusters each point falls into."""
    centres = points[generator.choice(len(points), _BRANCHES, replace=False)]
    assigned = np.zeros(len(points), dtype=np.int64)
    for _ in range(_ROUNDS):
        assigned = (points @ centres.T).argmax(1)
        for cluster in range(_BRANCHES):
            own = points[assigned == cluster]
            if len(own):
                mean = own.mean(0)
                centres[cluster] = mean / max(float(np.linalg.norm(mean)), 1e-6)
    return assigned


@torch.no_grad()
def add_tool_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, int]:
    """Give a model a token for each text, which begins as the mean of the ordinary tokens of what it says.

    Both matrices grow where there are two: each new row is the mean of that matrix's own rows.

    Args:
        model: it changes in place.
        tokenizer: it changes in place.
        texts: such as ``<<tool&&api>>``.

    Returns:
        The id of each token.

    Raises:
        ConfigError: a text is a token already, or there twice.
    """
    before = tokenizer.get_vocab()
    if known := [text for text in texts if text in before]:
        raise ConfigError(f"{known[0]!r} is a token already")
    spoken = [" ".join(text.removeprefix("<<").removesuffix(">>").split("&&", 1)) for text in texts]
    encoded: Any = tokenizer(spoken, add_special_tokens=False)["input_ids"]
    added: Any = [AddedToken(text, normalized=False, special=False) for text in texts]
    if tokenizer.add_tokens(added) != len(texts):
        raise ConfigError("one of the texts is there twice; each tool needs its own")
    vocabulary = tokenizer.get_vocab()
    ids = {text: vocabulary[text] for text in texts}
    model.resize_token_embeddings(max(len(tokenizer), len(input_matrix(model))), mean_resizing=False)
    rows = torch.tensor([ids[text] for text in texts])
    matrices = [input_matrix(model)]
    if output_matrix(model).data_ptr() != matrices[0].data_ptr():
        matrices.append(output_matrix(model))
    for matrix in matrices:
        matrix[rows] = _means(matrix, encoded)
    return ids


def _means(matrix: Tensor, encoded: Sequence[Sequence[int]]) -> Tensor:
    """[N, d] the mean of the rows of each list of tokens; of none, that of all rows."""
    flat = torch.tensor([token for ids in encoded for token in ids], dtype=torch.long)
    lengths = torch.tensor([len(ids) for ids in encoded])
    starts = lengths.cumsum(0) - lengths
    means = nn.functional.embedding_bag(flat, matrix.float(), starts, mode="mean")
    means[lengths == 0] = matrix.float().mean(0)
    return means.to(matrix.dtype)
