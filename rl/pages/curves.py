"""A run's metrics as curves, drawn on the server."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_AXES = ("round", "step")
_SKIPPED = {"time", "stage", "round", "step"}
_WIDTH, _HEIGHT = 300, 90
_MOST = 400
"""Points of one curve; further ones are averaged with their neighbours."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over the rounds or steps of one stage."""

    stage: str
    name: str
    axis: str
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        return self.points[-1][1]

    @property
    def low(self) -> float:
        return min(value for _, value in self.points)

    @property
    def high(self) -> float:
        return max(value for _, value in self.points)

    def line(self) -> str:
        """The points of an SVG polyline in a box of 300 by 90."""
        first, last = self.points[0][0], self.points[-1][0]
        wide, tall = (last - first) or 1, (self.high - self.low) or 1
        return " ".join(
            f"{_WIDTH * (x - first) / wide:.1f},{_HEIGHT - (_HEIGHT - 4) * (y - self.low) / tall - 2:.1f}"
            for x, y in self.points
        )


def curves(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Curve]]:
    """By stage, every figure that was logged more than once; a step that was repeated after a crash counts once."""
    found: dict[tuple[str, str, str], dict[float, float]] = {}
    for record in records:
        axis = next((axis for axis in _AXES if axis in record), None)
        if axis is None:
            continue
        for name, value in record.items():
            if name not in _SKIPPED and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault((str(record.get("stage", "")), name, axis), {})[record[axis]] = float(value)
    by_stage: dict[str, list[Curve]] = {}
    for (stage, name, axis), points in found.items():
        ordered = _thinned(sorted((x, y) for x, y in points.items() if y == y))
        if len(ordered) > 1:
            by_stage.setdefault(stage, []).append(Curve(stage, name, axis, tuple(ordered)))
    return by_stage


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``_MOST`` points, each the mean of as many neighbours."""
    size = -(-len(points) // _MOST)
    parts = [points[start : start + size] for start in range(0, len(points), max(1, size))]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
