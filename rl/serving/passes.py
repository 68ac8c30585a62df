"""A forward pass over packed sequences: through the model's own code, or, for the commonest shape, by a shorter way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import rms_norm
from transformers import Cache, PreTrainedModel
from transformers.masking_utils import causal_mask_function

from rl.serving.attention import NAME, PASS, Scoring, Visible
from rl.serving.cache import LayerShape, Layout, Tails
from rl.serving.packing import Packed, RowRead, StripRead

_LEAN = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
"""Models of one shape: rotary embeddings, RMS norms before attention and before a gated feed-forward part."""


class PackedModel:
    """A model that reads packed sequences."""

    def __init__(self, model: PreTrainedModel, layout: Layout) -> None:
        self.model = model
        self.layout = layout
        configs = [getattr(module, "config", None) for module in model.modules()]
        attending = {id(config): config for config in configs if hasattr(config, "_attn_implementation_internal")}
        self._configs: list[Any] = list(attending.values())

    @property
    def token_bytes(self) -> int:
        """Of what is kept of one token."""
        return self.layout.token_bytes

    @property
    def logits_cost(self) -> int:
        """Tokens whose keys and values take as much as one token's logits."""
        head: Any = self.model.get_output_embeddings()
        return -(-4 * head.weight.shape[0] // self.token_bytes)

    @torch.inference_mode()
    def read(self, tails: Tails, rows: Sequence[RowRead], strips: Sequence[StripRead], asked: Sequence[int]) -> Tensor:
        """Read tokens of rows and of strips; their keys and values are written where they belong.

        Args:
            tails: of the rows.
            rows: in the order of their places.
            strips: prompts.
            asked: which sequences' last tokens are asked what follows: rows count from 0, strips after the last row.

        Returns:
            [asked, V] float logits.
        """
        packed = Packed(self.layout, tails, rows, strips)
        keep = torch.as_tensor(packed.starts[np.asarray(asked, dtype=int) + 1] - 1, device=self.layout.device)
        return self._logits(packed, keep).float()

    def _logits(self, packed: Packed, keep: Tensor) -> Tensor:
        """[keep, V] the logits after some of the tokens."""
        before = [config._attn_implementation_internal for config in self._configs]
        token = PASS.set(packed)
        for config in self._configs:
            config._attn_implementation_internal = NAME
        try:
            logits = self.model(
                input_ids=packed.ids[None],
                position_ids=packed.positions[None],
                past_key_values=packed,
                use_cache=True,
                logits_to_keep=keep,
            ).logits[0]
        finally:
            PASS.reset(token)
            for config, implementation in zip(self._configs, before, strict=True):
                config._attn_implementation_internal = implementation
        return logits if len(logits) == len(keep) else logits[keep]


class LeanModel(PackedModel):
    """Decoders of LLaMA's shape, read with the same modules and the same arithmetic, and half of the calls.

    Small models spend most of a pass in calls. Adapters work, since they are modules like those that they wrap.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout) -> None:
        """
        Args:
            model: in evaluation mode.
            layout: what it keeps.

        Raises:
            NotImplementedError: it is of another shape, or split over devices, or has windows.
        """
        super().__init__(model, layout)
        config: Any = model.config
        whole = set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        whole = whole and getattr(config, "sliding_window", None) is None
        if type(model).__name__ not in _LEAN or not whole or hasattr(model, "hf_device_map"):
            raise NotImplementedError(f"{type(model).__name__} is of another shape, or is split, or has windows")
        self._parts: Any = model.model
        self._heads: int = config.num_attention_heads
        self._scorings = [Scoring(layer.self_attn.scaling, None, None) for layer in self._parts.layers]

    def _logits(self, packed: Packed, keep: Tensor) -> Tensor:
        parts = self._parts
        hidden = parts.embed_tokens(packed.ids)
        cos, sin = parts.rotary_emb(hidden[None], packed.positions[None])
        half = cos.shape[-1] // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        turn = (cos[0][:, None], signed[0][:, None])
        visible = Visible(causal_mask_function)
        for layer, scoring in zip(parts.layers, self._scorings, strict=True):
            attention, forward = layer.self_attn, layer.mlp
            seen = self._attended(attention, _normed(layer.input_layernorm, hidden), turn, packed, visible, scoring)
            if layer is parts.layers[-1]:  # of the other tokens nothing is needed but their keys and values
                seen, hidden = seen[keep], hidden[keep]
            hidden += attention.o_proj(seen)
            read = _normed(layer.post_attention_layernorm, hidden)
            hidden += forward.down_proj(forward.act_fn(forward.gate_proj(read)) * forward.up_proj(read))
        head: Any = self.model.get_output_embeddings()
        return head(_normed(parts.norm, hidden))

    def _attended(
        self,
        attention: Any,
        read: Tensor,
        turn: tuple[Tensor, Tensor],
        packed: Packed,
        visible: Visible,
        scoring: Scoring,
    ) -> Tensor:
        """[N, Hq * D] what the tokens get from their sequences; ``turn`` is the rotary embedding, [N, 1, D] each."""
        query, key, value = attention.q_proj(read), attention.k_proj(read), attention.v_proj(read)
        width = attention.head_dim
        if hasattr(attention, "q_norm"):
            query = _normed(attention.q_norm, query.view(len(read), -1, width))
            key = _normed(attention.k_norm, key.view(len(read), -1, width))
            both = torch.cat([query, key], dim=1)
        else:
            both = torch.cat([query, key], dim=1).view(len(read), -1, width)
        half = width // 2
        swapped = torch.cat([both[..., half:], both[..., :half]], dim=-1)
        turned = (both * turn[0]).addcmul_(swapped, turn[1]).transpose(0, 1)[None]
        key = turned[:, self._heads :]
        packed.update(key, value.view(len(read), -1, width).transpose(0, 1)[None], attention.layer_idx)
        return packed.attend(turned[:, : self._heads], key, visible, scoring).reshape(len(read), -1)


def _normed(norm: Any, hidden: Tensor) -> Tensor:
    return rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


class _Shapes(Cache):
    """Takes down what each layer keeps."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.states: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.states[layer_idx] = (key_states, value_states)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


@torch.inference_mode()
def layout_of(model: PreTrainedModel) -> Layout | None:
    """What a model keeps of a token, as one forward pass shows; None where it keeps something else than that."""
    shapes = _Shapes()
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    model(input_ids=token, position_ids=token, past_key_values=shapes, use_cache=True)
    if not shapes.states or any(k.ndim != 4 or v.ndim != 4 for k, v in shapes.states.values()):
        return None
    numbers = tuple(sorted(shapes.states))
    states = [shapes.states[number] for number in numbers]
    layers = tuple(LayerShape(heads=k.shape[1], key=k.shape[3], value=v.shape[3]) for k, v in states)
    return Layout(numbers, layers, states[0][0].dtype, model.device)
