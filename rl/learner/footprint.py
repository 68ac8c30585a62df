"""How a model is held and read while it learns, as a config says it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Packing = Literal["auto", "packed", "padded"]
"""``packed``: candidates of a group stand behind one prompt; ``padded``: each has its own; ``auto`` packs where the
model reads packed rows as it reads others."""
Strategy = Literal["ddp", "zero2", "zero3", "fsdp2"]
"""``ddp``: every rank has the whole model. ``zero2``: gradients and optimiser are shared out (DeepSpeed). ``zero3`` and
``fsdp2``: the weights as well (DeepSpeed, and torch's own)."""
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a model takes while it learns."""

    strategy: Strategy = "ddp"
    """How the ranks hold it between them."""
    precision: Precision = "fp32"
    """What products are computed in; weights, gradients and sums stay in float32."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, a third more time."""

    @property
    def dtype(self) -> "torch.dtype | None":
        """What products are computed in, where it is not the weights' own."""
        import torch

        return torch.bfloat16 if self.precision == "bf16" else None
