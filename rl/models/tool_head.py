"""Tools as tokens of a frozen model: one row of a matrix each (ToolkenGPT, Hao et al. 2023).

A tool is predicted like a word. Its row is a further row of the output matrix, so its logit is the row times the last
hidden state; it has no input embedding, because what the model reads in its place is the tool's result as text.
"""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from executors.errors import ConfigError, DataError

HEAD = "tool_head.safetensors"


@dataclass(frozen=True, slots=True)
class ToolHead:
    """The rows of some tools, by name."""

    names: tuple[str, ...]
    weight: Tensor
    """[K, d] in float32."""

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or len(self.names) != len(self.weight):
            raise ConfigError(f"{len(self.weight)} rows cannot be those of {len(set(self.names))} different tools")

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each tool: its row."""
        return {name: number for number, name in enumerate(self.names)}

    def subset(self, names: Sequence[str]) -> "ToolHead":
        """The rows of the named tools, in that order.

        Raises:
            ConfigError: a tool has none.
        """
        numbers = self.numbers
        if strange := [name for name in names if name not in numbers]:
            raise ConfigError(f"the head has no tool {strange[0]!r}; it has {', '.join(self.names[:8])} ...")
        return ToolHead(tuple(names), self.weight[[numbers[name] for name in names]].clone())

    def appended(self, name: str, row: Tensor) -> "ToolHead":
        """The same with one more tool; the rows of the others stay as they are.

        Args:
            name: of the tool.
            row: [d].
        """
        return ToolHead((*self.names, name), torch.cat([self.weight, row.to(self.weight)[None]]))

    def save(self, path: Path) -> Path:
        """Write ``tool_head.safetensors`` into a folder: 4 bytes a number, and the names."""
        path.mkdir(parents=True, exist_ok=True)
        file = path / HEAD
        save_file({"weight": self.weight.detach().float().contiguous()}, file, {"names": json.dumps(self.names)})
        return file

    @classmethod
    def load(cls, path: Path, names: Sequence[str] | None = None) -> "ToolHead":
        """Read a head from a folder, or of it the rows of the named tools.

        Raises:
            DataError: the folder holds none.
            ConfigError: a named tool has no row in it.
        """
        try:
            with safe_open(path / HEAD, framework="pt") as file:
                kept = json.loads((file.metadata() or {})["names"])
                head = cls(tuple(kept), file.get_tensor("weight"))
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise DataError(f"{path} holds no tool head ({HEAD}): {error}") from error
        return head if names is None else head.subset(names)


def fresh_head(names: Sequence[str], width: int, seed: int) -> ToolHead:
    """Rows drawn as published: uniform within one over the root of the width."""
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(width)
    return ToolHead(tuple(names), torch.empty(len(names), width).uniform_(-bound, bound, generator=generator))


def described_row(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, description: str, scale: float = 1.0
) -> Tensor:
    """[d] A row for a tool without examples: the mean of the output rows of its description's tokens.

    Raises:
        ConfigError: the description has no tokens.
    """
    ids = tokenizer.encode(description, add_special_tokens=False)
    if not ids:
        raise ConfigError("a tool's row cannot be made of an empty description")
    return output_matrix(model)[ids].mean(0).float() * scale


def output_matrix(model: PreTrainedModel) -> Tensor:
    """[V, d] The rows that a model's hidden states are multiplied with to give logits."""
    head: Any = model.get_output_embeddings()
    return head.weight.detach()


def input_matrix(model: PreTrainedModel) -> Tensor:
    """[V, d] What a model reads tokens as."""
    embedding: Any = model.get_input_embeddings()
    return embedding.weight.detach()


def hidden_and_logits(
    model: PreTrainedModel, ids: Tensor, attention_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """[B, T, d] the states that the output matrix reads, and [B, T, V] the logits of words."""
    head: Any = model.get_output_embeddings()
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        logits = model(input_ids=ids, attention_mask=attention_mask).logits
    finally:
        hook.remove()
    return caught[0], logits


def joint_loss(logits: Tensor, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """ToolkenGPT's loss as published: cross-entropy over words and tools together.

    Args:
        logits: [N, V] of words.
        hidden: [N, d].
        weight: [K, d] the tools' rows.
        labels: [N] a word's id, ``V`` plus a tool's number, or -100 for what does not count.

    Returns:
        [] the mean over what counts.
    """
    both = torch.cat([logits.float(), hidden.float() @ weight.T], dim=-1)
    return nn.functional.cross_entropy(both, labels, ignore_index=-100)


def token_of(name: str) -> str:
    """How a tool's token is written in a merged vocabulary; no text has it by chance."""
    return f"<|tool:{name}|>"


def merged(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, head: ToolHead
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, int]]:
    """A plain causal model in which the tools are tokens, for engines that know nothing of heads.

    The logits of words are the same to the last bit, and those of tools are the head's. A model whose input and output
    matrices are one gets two. Input rows of tools, which nothing reads, are the mean of all.

    Args:
        model: it stays as it is.
        tokenizer: it stays as it is.
        head: the tools' rows.

    Returns:
        The model, its tokenizer, and the token id of each tool.

    Raises:
        ConfigError: the model's output matrix has a bias, for which a head has no place.
    """
    output: Any = model.get_output_embeddings()
    if getattr(output, "bias", None) is not None:
        raise ConfigError("the model's output matrix has a bias, and a tool head has none; it cannot be merged")
    wide = copy.deepcopy(tokenizer)
    added: Any = [AddedToken(token_of(name), normalized=False, special=False) for name in head.names]
    wide.add_tokens(added)
    vocabulary = wide.get_vocab()
    ids = {name: vocabulary[token_of(name)] for name in head.names}
    rows = max(len(wide), output.weight.shape[0])
    config = type(model.config).from_dict({**model.config.to_dict(), "vocab_size": rows, "tie_word_embeddings": False})
    grown: Any = type(model)(config)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    embedding, out = _matrix_names(grown)
    inside = input_matrix(model)
    state[embedding] = _grown(inside, rows, inside.mean(0))
    state[out] = _grown(output.weight.detach(), rows, torch.full_like(output.weight[0], 0))
    for name, row in zip(head.names, head.weight, strict=True):
        state[out][ids[name]] = row.to(state[out])
    grown.load_state_dict(state)
    grown.to(model.dtype)
    return grown.eval(), wide, ids


def _matrix_names(model: PreTrainedModel) -> tuple[str, str]:
    """The names of a model's input and output matrices."""
    inside, out = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    return f"{names[id(inside)]}.weight", f"{names[id(out)]}.weight"


def _grown(matrix: Tensor, rows: int, fill: Tensor) -> Tensor:
    """A matrix with further rows, each of them ``fill``."""
    return torch.cat([matrix, fill[None].expand(rows - len(matrix), -1)]) if rows > len(matrix) else matrix.clone()
