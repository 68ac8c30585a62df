"""What a run's figures look like: charts as Vega-Lite, and the scripts that draw them with no network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CURVES = (
    ("validate", "utility", "Utility on validation tasks", "round"),
    ("validate", "accuracy", "Accuracy on validation tasks", "round"),
    ("validate", "call_rate", "Call rate on validation tasks", "round"),
    ("improve", "rank_accuracy", "Pairs that the policy ranks as the rewards do", "step"),
    ("improve", "decision_accuracy", "The same for pairs that differ in the decision to call", "step"),
    ("improve", "loss", "Loss of the improvement", "step"),
    ("clone", "loss", "Loss of the cloning", "step"),
)
_MOST = 300
"""Points of one curve; further ones are averaged with their neighbours."""
_SMOOTH = 20
_WIDTH, _HEIGHT = 420, 150
_COLOUR = "#0a9e76"


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart."""

    title: str
    spec: Mapping[str, Any]
    """Vega-Lite."""


def curve_charts(records: Iterable[Mapping[str, Any]]) -> list[Chart]:
    """The curves of a run that has any.

    Args:
        records: the lines of its ``metrics.jsonl``.
    """
    every = list(records)
    found = []
    for stage, name, title, axis in _CURVES:
        points = {r[axis]: r[name] for r in every if r.get("stage") == stage and _number(r.get(name)) and axis in r}
        if len(points) > 1:
            spec = _line(_thinned(sorted(points.items())), axis, name, smoothed=axis == "step")
            found.append(Chart(f"{title}, by {axis}", spec))
    return found + _by_source(every)


def outcome_chart(counts: Mapping[str, Mapping[str, int]], colours: Mapping[str, str]) -> Chart:
    """How many attempts came to which outcome, a bar for each state of the policy.

    Args:
        counts: by state, attempts by outcome.
        colours: of each outcome, in the order that they are stacked.
    """
    import altair as alt

    rows = [
        {"state": state, "outcome": outcome, "attempts": number, "order": place}
        for state, by_outcome in counts.items()
        for place, outcome in enumerate(colours)
        if (number := by_outcome.get(outcome, 0))
    ]
    shown = [outcome for outcome in colours if any(row["outcome"] == outcome for row in rows)]
    scale = alt.Scale(domain=shown, range=[colours[outcome] for outcome in shown])
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(stroke="white", strokeWidth=0.5)
        .encode(
            x=alt.X("attempts:Q", title="attempts"),
            y=alt.Y("state:N", title=None, sort=list(counts)),
            color=alt.Color("outcome:N", scale=scale, legend=alt.Legend(title=None, columns=4, orient="bottom")),
            order=alt.Order("order:Q"),
            tooltip=["state:N", "outcome:N", "attempts:Q"],
        )
        .properties(width=2 * _WIDTH, height=34 * len(counts))
    )
    return Chart("What attempts at the held-out tasks came to", chart.to_dict())


def drawing_scripts() -> str:
    """Vega, Vega-Lite and their embedding, as one script for a page that is read without a network."""
    import vl_convert

    bundle: Any = vl_convert.javascript_bundle  # its stub asks for an argument that it does not need
    return bundle().replace("</script", "<\\/script")


def _line(points: Sequence[tuple[float, float]], axis: str, name: str, *, smoothed: bool) -> dict[str, Any]:
    """A curve; where it is noisy, the mean of the latest values stands before the values themselves."""
    import altair as alt

    rows: list[dict[str, float]] = []
    for number, (x, y) in enumerate(points):
        part = [value for _, value in points[max(0, number - _SMOOTH + 1) : number + 1]]
        rows.append({"x": x, "value": _short(y), "mean": _short(sum(part) / len(part))})
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title=axis, axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        tooltip=[alt.Tooltip("x:Q", title=axis), alt.Tooltip("value:Q", title=name.replace("_", " "))],
    )
    scale = alt.Scale(zero=False)
    y = alt.Y("value:Q", title=None, scale=scale)
    if not smoothed:
        drawn = base.mark_line(point={"size": 24}, color=_COLOUR).encode(y=y)
    else:
        drawn = alt.layer(
            base.mark_line(color=_COLOUR, opacity=0.3, strokeWidth=1).encode(y=y),
            base.mark_line(color=_COLOUR, strokeWidth=2).encode(y=alt.Y("mean:Q", title=None, scale=scale)),
        )
    return drawn.properties(width=_WIDTH, height=_HEIGHT).to_dict()


def _by_source(records: Iterable[Mapping[str, Any]]) -> list[Chart]:
    """What the attempts of each source are worth, round by round."""
    import altair as alt

    rows = [
        {"round": record["round"], "source": name.removeprefix("reward/"), "reward": _short(value)}
        for record in records
        if record.get("stage") == "groups"
        for name, value in record.items()
        if name.startswith("reward/") and _number(value)
    ]
    if len({row["round"] for row in rows}) < 2:
        return []
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("round:Q", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
            y=alt.Y("reward:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color("source:N", legend=alt.Legend(title=None, columns=4, orient="bottom")),
            tooltip=["source:N", "round:Q", "reward:Q"],
        )
        .properties(width=_WIDTH, height=_HEIGHT)
    )
    return [Chart("Mean reward of each source's attempts, by round", chart.to_dict())]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // _MOST)
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(chunk[-1][0], sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
