"""report.html: one self-contained page that says what a run did, and how to do it again."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from jinja2 import Environment, PackageLoader, select_autoescape

from rl.data.rounds import RoundLog
from rl.evaluation.charts import Chart, curve_charts, drawing_scripts, outcome_chart
from rl.evaluation.samples import OUTCOMES, Samples, choose, outcome_counts, right_by
from rl.run import Run
from rollouts.store import Log
from rollouts.types import Group

_STATES = ("base", "start", "final", "last", "continued_cloning", "always_call", "always_direct")
_HEADLINE = ("decisions", "needless", "missed", "utility", "accuracy", "correct", "wellformed", "api_match", "tool")
_HEADLINE += ("recall@1", "recall@5", "ndcg@5", "process")
_PLAIN = ("seed", "groups", "levels", "rejected_rows", "cpu_seconds", "tools", "learned", "seconds")
_TEXT = 600
"""Characters of one reply or observation that are shown."""
_ATTEMPTS = 3000
"""Held-out tasks whose attempts are read at most."""


def write_report(run: Run, summary: Mapping[str, Any]) -> None:
    """Write the run's report; it needs no network and no other file.

    Args:
        run: with whatever it has kept of attempts and metrics.
        summary: what ``evaluation/summary.json`` holds.
    """
    states = [name for name in dict.fromkeys((*_STATES, *sorted(summary))) if _is_state(summary.get(name))]
    attempts = {name: groups for name in ("base", "start", "final", "last") if (groups := _attempts(run, name))}
    match = (run.config().get("evaluation") or {}).get("match", "mixed")
    right = right_by(cast(Any, match))
    ranked = sorted(
        (record.group for record in RoundLog(run.path).last()),
        key=lambda group: -len({candidate.reward.value for candidate in group.candidates}),
    )
    seed = summary.get("seed", 0)
    samples = choose(attempts.get("start", ()), attempts.get("final", ()), ranked, right, seed)
    counts = {name: outcome_counts(groups, right) for name, groups in attempts.items()}
    charts = curve_charts(run.metrics())
    page = _template().render(
        title=run.path.name,
        count=next((summary[name]["n"] for name in ("final", "start", *states) if _is_state(summary.get(name))), 0),
        moved=list(_moved(summary)),
        tables=list(_tables(summary, states)),
        changes=_changes(summary, states),
        charts=[_drawn(chart) for chart in charts],
        outcomes={name: {known: by.get(known, 0) for known in OUTCOMES} for name, by in counts.items()},
        outcome_chart=_drawn(outcome_chart(counts, OUTCOMES)) if counts else None,
        groups=ranked[:3],
        samples=samples,
        sampled=_any(samples),
        plain={key: summary[key] for key in _PLAIN if key in summary},
        scripts=drawing_scripts() if charts or counts else "",
        text=_TEXT,
        **_origin(run),
    )
    (run.path / "report.html").write_text(page)


@cache
def _template() -> Any:
    loader = PackageLoader("rl.evaluation")
    environment = Environment(loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True)
    environment.filters["words"] = lambda name: name.replace("_", " ")
    environment.tests["sure"] = lambda figure: figure["low"] > 0 or figure["high"] < 0
    return environment.get_template("report.html")


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and "n" in value


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys() and value["value"] is not None


def _moved(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any], Any]]:
    """The figures that say most: name, before, after, and the paired change."""
    start, final = summary.get("start", {}), summary.get("final", {})
    for name in _HEADLINE:
        if _is_figure(start.get(name)) and _is_figure(final.get(name)):
            change = summary.get("change", {}).get(name)
            yield name, start[name], final[name], change if _is_figure(change) else None


def _tables(summary: Mapping[str, Any], states: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every figure of every state: of all tasks, then of each data set where there are several."""
    names = list(dict.fromkeys(name for state in states for name in summary[state] if name != "n"))
    titles = dict.fromkeys(name.partition("/")[2] for name in names)
    for title in sorted(titles, key=bool):
        shown = [name for name in names if name.partition("/")[2] == title]
        rows = [(state, [_figure(summary[state].get(name)) for name in shown]) for state in states]
        yield {"title": title, "names": [name.partition("/")[0] for name in shown], "rows": rows}


def _figure(value: Any) -> Any:
    return value if _is_figure(value) else None


def _changes(summary: Mapping[str, Any], states: Sequence[str]) -> dict[str, Any] | None:
    """How much better the final state is than each other, on the same questions."""
    compared = [("final over start", summary.get("change"))]
    compared += [(f"final over {name}", summary.get(f"final_over_{name}")) for name in states]
    rows = [(title, figures) for title, figures in compared if isinstance(figures, Mapping)]
    names = [name for name in (rows[0][1] if rows else {}) if "/" not in name]
    if not names:
        return None
    return {
        "names": names,
        "rows": [(title, [_figure(figures.get(name)) for name in names]) for title, figures in rows],
    }


def _attempts(run: Run, name: str) -> list[Group]:
    path = run.path / "evaluation" / f"{name}.jsonl"
    if not path.is_file():
        return []
    return [group for _, group in zip(range(_ATTEMPTS), Log(path, Group).read(), strict=False)]


def _any(samples: Samples) -> bool:
    return bool(samples.best or samples.worst or samples.changed or samples.drawn)


def _drawn(chart: Chart) -> dict[str, str]:
    """A chart for the page; nothing in its JSON can end the script that it stands in."""
    return {"title": chart.title, "spec": json.dumps(chart.spec, separators=(",", ":")).replace("</", "<\\/")}


def _origin(run: Run) -> dict[str, Any]:
    """The config, the versions and the command of a run."""
    environment = _read(run.path / "environment.json")
    given = run.path / "config.yaml"
    text = given.read_text() if given.is_file() else run.resolved.read_text()
    best = run.path / "checkpoints" / "best"
    return {
        "config": text,
        "resolved": run.resolved.read_text(),
        "environment": environment,
        "command": _command(environment.get("command") or []),
        "digest": hashlib.sha256(yaml.safe_dump(run.config(), sort_keys=True).encode()).hexdigest()[:16],
        "data": run.state().get("data") or {},
        "best": best.resolve().name if best.exists() else None,
    }


def _command(words: Sequence[str]) -> str:
    """The command that makes the run once more, as a shell reads it."""
    kept = [word for word in words[1:] if word != "--resume"]
    return shlex.join(["apprentice", *kept]) if kept else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
