"""Answers for tools that are only described: what the schema of their answers allows, settled by the call itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from executors.schemas.fabricate import Fabricator, Taste
from executors.schemas.vocabulary import Draw
from executors.types import ToolSpec


@dataclass(frozen=True, slots=True)
class Described:
    """Answers calls of tools by ``ToolSpec.returns``: the same call is answered the same, in any process.

    Nothing is remembered from call to call; where an API has a document, ``executors.simulation.simulated`` does that.
    A tool that says nothing of its answers says that the call went through. See ``executors.foreign.unbacked``.
    """

    seed: int = 0
    """Another one gives other answers."""
    taste: Taste = field(default=Taste(items=2, max_depth=4))

    def __call__(self, spec: ToolSpec, arguments: Mapping[str, Any]) -> Any:
        if spec.returns is None:
            return {"status": "completed"}
        draw = Draw.of("described", self.seed, spec.name, sorted(map(repr, arguments.items())))
        return Fabricator(self.taste, root=spec.returns).value(spec.returns, draw)
