"""Sentence encoders: any encoder in Hugging Face's format, its hidden states averaged over a text's tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from executors.errors import DataError

_BATCH = 32


class SentenceEncoder:
    """Makes a vector of each text; what is alike in meaning is near by cosine, if the model was made for that."""

    def __init__(self, path: Path, *, max_tokens: int = 256) -> None:
        """
        Args:
            path: of the model and its tokenizer.
            max_tokens: of a text; what is longer is cut.

        Raises:
            DataError: the directory holds no such model.
        """
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} holds no sentence encoder ({type(error).__name__}: {str(error).splitlines()[0]}); "
                "name a directory in Hugging Face's format with a model and its tokenizer"
            ) from error
        self._max_tokens = max_tokens

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """[n, d] vectors of n texts; padding has no part in them."""
        made = []
        for first in range(0, len(texts), _BATCH):
            batch = self._tokenizer(
                list(texts[first : first + _BATCH]),
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            )
            hidden = self._model(**batch).last_hidden_state  # [B, T, d]
            there = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # [B, T, 1]
            made.append(((hidden * there).sum(1) / there.sum(1).clamp(min=1)).numpy())
        return np.concatenate(made) if made else np.zeros((0, self._model.config.hidden_size), dtype=np.float32)
