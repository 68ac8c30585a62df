"""Which model a config names, and what of it is trained."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from rl.config import ModelPath, Strict

Indexing = Literal["atomic", "semantic", "numeric", "hierarchical"]
"""What text stands for a tool; see ``rl.models.tool_tokens``."""


class Adapter(Strict):
    """Adapters to train instead of the model itself."""

    kind: Literal["lora", "qlora"] = "lora"
    """``qlora`` also holds the model in 4 bits while it learns; it needs a GPU and bitsandbytes."""
    r: int = Field(default=8, gt=0)
    """Rank of the matrices."""
    alpha: float = Field(default=16, gt=0)
    """They are weighted by ``alpha / r``."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get one, such as ``[q_proj, v_proj]``; every linear one but the head by default."""
    rows: bool = True
    """Whether rows that a recipe adds to the vocabulary are trained and saved with the adapter, whole; without, they
    stay what they began as. Recipes that add none have none."""


AdapterConfig: TypeAlias = Adapter | None
"""None trains the whole model."""


class TinyModel(Strict):
    """A small decoder with random weights, and a tokenizer built from the training tasks: nothing is downloaded."""

    kind: Literal["tiny"] = "tiny"
    width: int = Field(default=96, ge=8)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=512, ge=300)
    max_length: int = Field(default=128, ge=16)
    """Tokens of prompt and response together."""
    adapter: AdapterConfig = None
    """Adapters to train instead of the model itself."""

    @model_validator(mode="after")
    def _whole_heads(self) -> "TinyModel":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


class HuggingFaceModel(Strict):
    """A causal model and its tokenizer from a local directory in Hugging Face's format."""

    kind: Literal["huggingface"] = "huggingface"
    path: ModelPath
    max_length: int = Field(default=2048, ge=16)
    """Tokens of prompt and response together."""
    adapter: AdapterConfig = None
    """Adapters to train instead of the model itself."""


ModelConfig = Annotated[TinyModel | HuggingFaceModel, Field(discriminator="kind")]
