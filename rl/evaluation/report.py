"""report.html: one self-contained page that says what a run did."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewards.types import RankedGroup
from rl.data.rounds import RoundLog
from rl.run import Run
from rollouts.store import Log
from rollouts.types import Episode, Group

_STATES = ("start", "final", "last", "continued_cloning", "always_call", "always_direct")
_CURVES = (
    ("validate", "utility", "Utility on validation tasks, by round", "round"),
    ("validate", "call_rate", "Call rate on validation tasks, by round", "round"),
    ("improve", "rank_accuracy", "Share of pairs that the policy ranks as the rewards do, by step", "step"),
    ("improve", "decision_accuracy", "The same for pairs that differ in the decision to call, by step", "step"),
    ("clone", "loss", "Cloning loss, by step", "step"),
)
_SMOOTH = 20


def write_report(run: Run, summary: Mapping[str, Any]) -> None:
    """Write the run's report; it needs no network and no other file."""
    states = [name for name in (*_STATES, *sorted(summary)) if _is_state(summary.get(name))]
    ordered = list(dict.fromkeys(states))
    body = [
        f"<h1>{html.escape(run.path.name)}</h1>",
        f"<p>{_intro(summary)}</p>",
        "<h2>Held-out tasks</h2>",
        _table(summary, ordered, [name for name in _figures(summary, ordered) if "/" not in name]),
        "<p class=note>Each cell: the value and its 95% interval (2,000 resamples of the questions). "
        "<i>Decisions</i>: called exactly where the policy’s own greedy direct answer is wrong. <i>Needless</i>: calls "
        "among questions that need none. <i>Missed</i>: direct answers among those that need a call. "
        "<i>Utility</i>: right minus the cost of a call. <i>Final</i> is the checkpoint that did best on the "
        "validation tasks; <i>last</i> is that of the last round, where it is another.</p>",
        *_by_dataset(summary, ordered),
        "<h2>What changed</h2>",
        _changes(summary, ordered),
        "<h2>Curves</h2>",
        *_curves(run),
        "<h2>Candidates of one task, ranked</h2>",
        *_groups(run),
        "<h2>Before and after on the same question</h2>",
        *_before_after(run),
        "<h2>Costs and counts</h2>",
        f"<pre>{html.escape(json.dumps({key: summary.get(key) for key in _plain(summary)}, indent=2))}</pre>",
        "<h2>Config</h2>",
        f"<pre>{html.escape(run.resolved.read_text())}</pre>",
    ]
    page = _PAGE.replace("{title}", html.escape(run.path.name)).replace("{body}", "\n".join(body))
    (run.path / "report.html").write_text(page)


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and "n" in value


def _plain(summary: Mapping[str, Any]) -> list[str]:
    return [key for key in ("seed", "groups", "levels", "rejected_rows", "cpu_seconds") if key in summary]


def _intro(summary: Mapping[str, Any]) -> str:
    final, start = summary.get("final", {}), summary.get("start", {})
    said = [
        f"{name}: {start[name]['value']:.3f} → <b>{final[name]['value']:.3f}</b>"
        for name in ("decisions", "needless", "missed", "utility", "accuracy", "correct", "wellformed", "api_match")
        if name in final and name in start
    ]
    return f"{final.get('n', 0)} held-out tasks. " + " · ".join(said)


def _figures(summary: Mapping[str, Any], states: Sequence[str]) -> list[str]:
    return [name for name in summary[states[0]] if name != "n"] if states else []


def _by_dataset(summary: Mapping[str, Any], states: Sequence[str]) -> Iterator[str]:
    """A table for each data set, where there are several."""
    found = [name for name in _figures(summary, states) if "/" in name]
    for dataset in dict.fromkeys(name.partition("/")[2] for name in found):
        yield f"<h3>{html.escape(dataset)}</h3>"
        yield _table(summary, states, [name for name in found if name.endswith(f"/{dataset}")])


def _table(summary: Mapping[str, Any], states: Sequence[str], figures: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in figures)
    rows = []
    for state in states:
        cells = "".join(_cell(summary[state].get(name)) for name in figures)
        rows.append(f"<tr><th>{html.escape(state.replace('_', ' '))}</th>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _cell(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return "<td>–</td>"
    return f"<td>{figure['value']:.3f}<small>{figure['low']:.3f} – {figure['high']:.3f}</small></td>"


def _changes(summary: Mapping[str, Any], states: Sequence[str]) -> str:
    compared = [("final over start", summary.get("change"))]
    compared += [(f"final over {name.replace('_', ' ')}", summary.get(f"final_over_{name}")) for name in states[2:]]
    compared = [(title, changes) for title, changes in compared if changes]
    if not compared:
        return "<p>No comparison.</p>"
    figures = [name for name in compared[0][1] or {} if "/" not in name]
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in figures)
    rows = []
    for title, changes in compared:
        cells = []
        for name in figures:
            figure = (changes or {})[name]
            sure = "sure" if figure["low"] > 0 or figure["high"] < 0 else ""
            interval = f"<small>{figure['low']:+.3f} – {figure['high']:+.3f}</small>"
            cells.append(f"<td class='{sure}'>{figure['value']:+.3f}{interval}</td>")
        rows.append(f"<tr><th>{html.escape(title)}</th>{''.join(cells)}</tr>")
    note = "<p class=note>Paired on the same questions; bold where the 95% interval excludes 0.</p>"
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>{note}"


def _curves(run: Run) -> Iterator[str]:
    records = list(run.metrics())
    for stage, name, title, axis in _CURVES:
        points = {record[axis]: record[name] for record in records if record.get("stage") == stage and name in record}
        if len(points) > 1:
            smooth = _SMOOTH if axis == "step" else 1
            line = _line(sorted(points.items()), smooth)
            yield f"<figure><figcaption>{html.escape(title)}</figcaption>{line}</figure>"


def _line(points: Sequence[tuple[float, float]], smooth: int) -> str:
    """An SVG line; values are averaged over ``smooth`` neighbours."""
    xs = [x for x, _ in points]
    values = [y for _, y in points]
    ys = [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i - smooth + 1) : i + 1])]
    low, high = min(ys), max(ys)
    span_x, span_y = (xs[-1] - xs[0]) or 1, (high - low) or 1
    path = " ".join(
        f"{40 + 540 * (x - xs[0]) / span_x:.1f},{110 - 100 * (y - low) / span_y:.1f}"
        for x, y in zip(xs, ys, strict=True)
    )
    return (
        f"<svg viewBox='0 0 600 130' role=img><polyline points='{path}'/>"
        f"<text x=2 y=14>{high:.3f}</text><text x=2 y=112>{low:.3f}</text>"
        f"<text x=40 y=127>{xs[0]:g}</text><text x=580 y=127 text-anchor=end>{xs[-1]:g}</text></svg>"
    )


def _groups(run: Run) -> Iterator[str]:
    """The first groups of the last round that have most to compare."""
    last = list(RoundLog(run.path).last())
    last.sort(key=lambda record: -len({candidate.reward.value for candidate in record.group.candidates}))
    for record in last[:3]:
        yield _group(record.group)
    if not last:
        yield "<p>None were recorded.</p>"


def _group(group: RankedGroup) -> str:
    rows = []
    for candidate in group.candidates:
        episode = candidate.episode
        parts = ", ".join(f"{name} {value:g}" for name, value in candidate.reward.parts.items())
        rows.append(
            f"<tr><td>{candidate.reward.value:.2f}<small>{html.escape(parts)}</small></td>"
            f"<td>{html.escape(episode.source)}<small>{html.escape(episode.policy)} v{episode.version}</small></td>"
            f"<td class=text>{_episode(episode)}</td></tr>"
        )
    question = html.escape(group.task.prompt)
    expected = html.escape(str(group.task.answer if group.task.answer is not None else group.task.gold))
    return (
        f"<h3>{question} <small>expected {expected}</small></h3>"
        f"<table><tr><th>reward</th><th>source</th><th>attempt</th></tr>{''.join(rows)}</table>"
    )


def _episode(episode: Episode) -> str:
    pieces = []
    for turn in episode.turns:
        pieces.append(html.escape(turn.completion.text))
        for observation in turn.observations:
            seen = html.escape(observation.content[:300])
            pieces.append(f"<mark class='{observation.status}'>{seen}</mark> ")
    return "".join(pieces)


def _before_after(run: Run) -> Iterator[str]:
    before = {group.task.id: group for group in Log(run.path / "evaluation" / "start.jsonl", Group).read()}
    rows = []
    for after in Log(run.path / "evaluation" / "final.jsonl", Group).read():
        early = before.get(after.task.id)
        if early is None or early.episodes[0].text == after.episodes[0].text:
            continue
        rows.append(
            f"<tr><td class=text>{html.escape(after.task.prompt)}</td><td>{html.escape(str(after.task.answer))}</td>"
            f"<td class=text>{_episode(early.episodes[0])}</td><td class=text>{_episode(after.episodes[0])}</td></tr>"
        )
        if len(rows) == 12:
            break
    yield f"<table><tr><th>question</th><th>expected</th><th>start</th><th>final</th></tr>{''.join(rows)}</table>"


_PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #0a7; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
small { display: block; opacity: .65; font-weight: normal; font-size: .8em; }
td.text { font-family: ui-monospace, monospace; font-size: .9em; white-space: pre-wrap; }
td.sure { font-weight: bold; } td.sure small { font-weight: normal; }
mark { background: var(--soft); color: inherit; border-radius: 3px; padding: 0 .2em; }
mark:not(.ok) { outline: 1px solid #c33; }
.note { opacity: .75; font-size: .9em; }
figure { margin: 1rem 0; max-width: 40rem; } figcaption { font-size: .9em; }
svg { width: 100%; height: auto; background: var(--soft); border-radius: 6px; }
polyline { fill: none; stroke: var(--accent); stroke-width: 2; } svg text { font-size: 11px; fill: currentColor; }
pre { background: var(--soft); padding: .8rem; border-radius: 6px; overflow-x: auto; font-size: .85em; }
</style>
<body>
{body}
</body></html>
"""
