"""Writes ``deploy/grafana.json``: a Grafana dashboard of what Apprentice tells Prometheus.

python deploy/grafana.py

Metrics of runs come from Ray's exporters, which write ``ray_`` before the names and ``_total`` after counters; those of
the endpoint from its own ``/metrics``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("grafana.json")
RUN = '{run=~"$run"}'
PER = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    title: str
    queries: dict[str, str]
    """By what their lines are called."""
    unit: str = "short"
    about: str = ""


def learner(*names: str) -> dict[str, str]:
    """The learner's figures at its last step, by name."""
    return {f"{{{{run}}}} {name}": f"ray_apprentice_learner_{name}{RUN}" for name in names}


def spread(metric: str) -> dict[str, str]:
    """The median and the 95th percentile of a histogram, by route."""
    per_bucket = f"sum by (le, route) (rate({metric}_bucket{PER}))"
    return {f"{{{{route}}}} p{p}": f"histogram_quantile(0.{p}, {per_bucket})" for p in (50, 95)}


def per_second(metric: str, *labels: str) -> dict[str, str]:
    """A counter's rate, by labels."""
    return {" ".join(f"{{{{{label}}}}}" for label in labels): f"sum by ({', '.join(labels)}) (rate({metric}{PER}))"}


ROWS: dict[str, tuple[Panel, ...]] = {
    "Learning": (
        Panel("Steps per minute", {"{{run}}": f"60 * rate(ray_apprentice_learner_steps_total{RUN}{PER})"}),
        Panel("Tokens per second, rank 0", {"{{run}}": f"rate(ray_apprentice_learner_tokens{RUN}{PER})"}),
        Panel("Loss", learner("loss", "loss_rank", "loss_sft")),
        Panel(
            "Order of pairs",
            learner("rank_accuracy", "decision_accuracy"),
            "percentunit",
            "Share of pairs with different rewards that the policy orders as the rewards do.",
        ),
        Panel(
            "Nothing to prefer",
            learner("tie_rate", "zero_variance"),
            "percentunit",
            "Pairs with equal rewards, and tasks whose rewards are all equal. Near 1 there is nothing to learn.",
        ),
        Panel("Reward", learner("reward_mean", "reward_spread")),
        Panel("Staleness, in rounds", learner("staleness")),
    ),
    "Attempts": (
        Panel("Episodes per second, by how they ended", per_second("ray_apprentice_episodes_total", "stop")),
        Panel("Tool calls per second, by outcome", per_second("ray_apprentice_tool_calls_total", "status")),
        Panel(
            "Calls that the infrastructure failed",
            {
                "unavailable": f'sum(rate(ray_apprentice_tool_calls_total{{status="unavailable"}}{PER})) / '
                f"sum(rate(ray_apprentice_tool_calls_total{PER}))"
            },
            "percentunit",
            "They are never ranked; many of them waste the run.",
        ),
    ),
    "Endpoint": (
        Panel("Requests per second", per_second("apprentice_serve_requests_total", "route", "status")),
        Panel("Requests under way", {"{{instance}}": "apprentice_serve_under_way"}),
        Panel("Seconds to the first byte", spread("apprentice_serve_first_byte_seconds"), "s"),
        Panel("Seconds of whole responses", spread("apprentice_serve_seconds"), "s"),
    ),
}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    prometheus = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    run = {
        "name": "run",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(ray_apprentice_learner_steps_total, run)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
    }
    return {
        "title": "Apprentice",
        "uid": "apprentice",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [prometheus, run]},
        "panels": list(panels()),
    }


def panels() -> Iterator[dict[str, Any]]:
    """Rows and their pictures, three beside one another."""
    top = id = 0
    for title, row in ROWS.items():
        id += 1
        yield {"id": id, "type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}}
        top += 1
        for place, panel in enumerate(row):
            id += 1
            grid = {"x": 8 * (place % 3), "y": top + 8 * (place // 3), "w": 8, "h": 8}
            yield picture(id, panel, grid)
        top += 8 * -(-len(row) // 3)


def picture(id: int, panel: Panel, grid: dict[str, int]) -> dict[str, Any]:
    """One panel as Grafana has it."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": id,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "gridPos": grid,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0 if panel.unit == "percentunit" else None}},
        "targets": [
            {"refId": chr(65 + place), "datasource": source, "expr": query, "legendFormat": legend}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
