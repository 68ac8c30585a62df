"""Requests and the tools that answer them: what a policy learns to find tools by (ToolGen)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from executors.catalog import Catalog
from executors.foreign import ForeignTool

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A request and the tools that answer it."""

    id: str
    text: str
    wanted: tuple[str, ...]
    """Names of tools, in the order that the data set has them."""
    offered: tuple[str, ...]
    """Those that its authors offered beside."""
    group: str
    """The file that it is in, such as ``G1_tool``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Tools, and queries in disjoint splits."""

    tools: Mapping[str, ForeignTool]
    """By name."""
    train: tuple[Query, ...]
    validation: tuple[Query, ...]
    test: tuple[Query, ...]
    rejected: tuple[str, ...] = ()
    """Queries none of whose tools is described, and why."""
    catalog: Catalog | None = None
    """What runs the tools; None where they are only described."""

    @property
    def queries(self) -> tuple[Query, ...]:
        return self.train + self.validation + self.test


def split_of(text: str, test_share: float, validation_share: float) -> Split:
    """Where a request belongs, by its own words alone; capitals and spaces count for nothing."""
    digest = hashlib.blake2b(plain(text).encode(), digest_size=4).digest()
    place = int.from_bytes(digest, "big") / 2**32
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def plain(text: str) -> str:
    """A request's words, by which it is the same as another one."""
    return " ".join(text.split()).lower()
