"""What was sampled, token by token, with how likely the policy found each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from rollouts.types import Completion


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled or forced token."""

    text: str
    id: int
    own: bool
    """Whether it was sampled: neither forced nor given."""
    logprob: float | None

    @property
    def shade(self) -> int:
        """From 0, certain, to 9, hardly to be expected; by its probability."""
        return 0 if self.logprob is None else min(9, int(10 * (1 - math.exp(self.logprob))))


def tokens(completion: Completion, run: Path) -> list[Token]:
    """The tokens of a reply; none where its source gave only text, or where the run's tokenizer is gone."""
    tokenizer = _tokenizer(run)
    if tokenizer is None or not completion.token_ids:
        return []
    count = len(completion.token_ids)
    masks = completion.mask or (True,) * count
    logprobs: tuple[float | None, ...] = completion.logprobs if len(completion.logprobs) == count else (None,) * count
    pieces = _pieces(tokenizer, completion.token_ids)
    return [
        Token(text, id, own, logprob)
        for text, id, own, logprob in zip(pieces, completion.token_ids, masks, logprobs, strict=True)
    ]


def _pieces(tokenizer: Tokenizer, ids: tuple[int, ...]) -> Iterator[str]:
    for id in ids:
        text = tokenizer.decode([id], skip_special_tokens=False)
        yield text or tokenizer.id_to_token(id) or f"[{id}]"


def _tokenizer(run: Path) -> Tokenizer | None:
    found = sorted((run / "checkpoints").glob("step-*/tokenizer.json"))
    return _read(found[0]) if found else None


@lru_cache(maxsize=8)
def _read(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))
