"""The pages as a web application: read-only, on one folder of runs, without a network and without a session."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, select_autoescape

from rewards.types import Candidate, RankedGroup
from rl.pages.attempts import Attempts, Entry
from rl.pages.curves import curves
from rl.pages.memories import memories
from rl.pages.shelf import Shelf, differences, states, summary_of
from rl.pages.tokens import tokens
from rl.run import Run
from rollouts.types import Episode, Group, Task

_HERE = Path(__file__).parent
_PAGE = 60
"""Tasks on one page."""
_ORDERS = ("logged", "spread", "worst", "best")


def pages_app(storage: Path) -> FastAPI:
    """The pages about all runs in a folder; see ``Shelf``."""
    shelf = Shelf(storage)
    views = _Views(shelf)
    app = FastAPI(title="Apprentice", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    app.add_api_route("/", views.runs, response_class=HTMLResponse)
    app.add_api_route("/compare", views.compare, response_class=HTMLResponse)
    app.add_api_route("/run", views.run, response_class=HTMLResponse)
    app.add_api_route("/run/curves", views.curves, response_class=HTMLResponse)
    app.add_api_route("/run/tasks", views.tasks, response_class=HTMLResponse)
    app.add_api_route("/run/task", views.task, response_class=HTMLResponse)
    app.add_api_route("/run/tools", views.tools, response_class=HTMLResponse)
    app.add_api_route("/run/memory", views.memory, response_class=HTMLResponse)
    app.add_api_route("/health", lambda: JSONResponse({"status": "ok", "runs": len(shelf.names())}))
    app.add_exception_handler(404, views.missing)
    return app


class _Views:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        loader = PackageLoader("rl.pages")
        self._templates = Environment(
            loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters |= {"figure": _figure, "change": _change, "age": _age, "pretty": _pretty}
        self._templates.tests["sure"] = _sure
        self._templates.globals |= {"link": _link, "title_of": shelf.title}

    def runs(self) -> str:
        cards = [(name, self._shelf.card(name)) for name in self._shelf.names()]
        return self._show("runs.html", cards=cards, storage=str(self._shelf.storage))

    def run(self, name: str) -> str:
        run = self._run(name)
        summary = summary_of(run)
        attempts = self._shelf.attempts(name)
        return self._show(
            "run.html",
            name=name,
            card=self._shelf.card(name),
            states=states(summary),
            columns=list(dict.fromkeys(key for figures in states(summary).values() for key in figures)),
            change=summary.get("change", {}),
            stages=curves(run.metrics()),
            config=run.resolved.read_text(),
            tasks=len({entry.task for entry in attempts.entries}),
            places=attempts.places,
            others=[other for other in self._shelf.names() if other != name],
        )

    def curves(self, name: str) -> str:
        """The curves alone, which a page that is open asks for again and again."""
        return self._show("curves.html", stages=curves(self._run(name).metrics()), card=self._shelf.card(name))

    def tasks(
        self, name: str, place: str = "", find: str = "", only: str = "", order: str = "logged", page: int = 1
    ) -> str:
        self._run(name)
        attempts = self._shelf.attempts(name)
        places = attempts.places
        if place not in (*places, "all"):  # where nothing is asked for, the last round is what one wants to see
            rounds = [known for known in places if known.startswith("round-")]
            place = (rounds[-1:] or places[:1] or ["all"])[0]
        order = order if order in _ORDERS else "logged"
        found = _ordered([entry for entry in attempts.entries if _fits(entry, place, find, only)], order)
        pages = max(1, math.ceil(len(found) / _PAGE))
        page = min(max(page, 1), pages)
        return self._show(
            "tasks.html",
            name=name,
            places=places,
            chosen={"place": place, "find": find, "only": only, "order": order},
            orders=_ORDERS,
            found=found[(page - 1) * _PAGE : page * _PAGE],
            total=len(found),
            page=page,
            pages=pages,
        )

    def task(self, name: str, task: str, place: str = "") -> str:
        run = self._run(name)
        attempts = self._shelf.attempts(name)
        entries = attempts.of_task(task)
        if not entries:
            raise HTTPException(404, f"{self._shelf.title(name)} has no attempt at a task {task!r}")
        entry = next((entry for entry in reversed(entries) if entry.place == place), entries[-1])
        group = attempts.group(entry)
        before, after = _neighbours(attempts, entry)
        return self._show(
            "task.html",
            name=name,
            entry=entry,
            entries=entries,
            task=group.task,
            candidates=_candidates(group),
            tokens={
                episode.id: [tokens(turn.completion, run.path) for turn in episode.turns] for episode in _all(group)
            },
            case=_test_case(group.task),
            before=before,
            after=after,
        )

    def tools(self, name: str) -> str:
        self._run(name)
        figures = sorted(self._shelf.attempts(name).tools.values(), key=lambda tool: -tool.calls)
        statuses = list(dict.fromkeys(status for tool in figures for status in tool.statuses))
        return self._show("tools.html", name=name, tools=figures, statuses=statuses)

    def memory(self, name: str) -> str:
        run = self._run(name)
        return self._show("memory.html", name=name, explorations=memories(run.path))

    def compare(self, a: str, b: str) -> str:
        left, right = self._run(a), self._run(b)
        one, other = states(summary_of(left)), states(summary_of(right))
        rows = [
            (state, figure, one[state][figure], other[state][figure])
            for state in one
            if state in other
            for figure in one[state]
            if figure != "n" and figure in other[state]
        ]
        return self._show("compare.html", a=a, b=b, rows=rows, differences=differences(left, right))

    async def missing(self, request: Request, error: Any) -> HTMLResponse:
        detail = getattr(error, "detail", "") or "there is no such page"
        return HTMLResponse(self._show("missing.html", detail=detail), status_code=404)

    def _run(self, name: str) -> Run:
        run = self._shelf.run(name)
        if run is None:
            raise HTTPException(404, f"there is no run {name!r} in {self._shelf.storage}")
        return run

    def _show(self, template: str, **values: Any) -> str:
        return self._templates.get_template(template).render(**values)


def _fits(entry: Entry, place: str, find: str, only: str) -> bool:
    if place not in ("all", entry.place):
        return False
    if find and find.lower() not in f"{entry.task} {entry.prompt}".lower():
        return False
    kept = {
        "mixed": 0 < entry.called < entry.attempts,
        "tied": entry.tied,
        "malformed": entry.malformed > 0,
        "failed": entry.failed > 0,
    }
    return kept.get(only, True)


def _ordered(entries: Sequence[Entry], order: str) -> list[Entry]:
    if order == "spread":
        return sorted(entries, key=lambda entry: (entry.worst or 0.0) - (entry.best or 0.0))
    if order == "worst":
        return sorted(entries, key=lambda entry: entry.best or 0.0)
    return sorted(entries, key=lambda entry: -(entry.best or 0.0)) if order == "best" else list(entries)


def _neighbours(attempts: Attempts, entry: Entry) -> tuple[Entry | None, Entry | None]:
    """The tasks before and after it at the same place."""
    row = [other for other in attempts.entries if other.place == entry.place]
    at = row.index(entry)
    return (row[at - 1] if at else None), (row[at + 1] if at + 1 < len(row) else None)


def _all(group: RankedGroup | Group) -> list[Episode]:
    return [one.episode for one in group.candidates] if isinstance(group, RankedGroup) else list(group.episodes)


def _candidates(group: RankedGroup | Group) -> list[tuple[int, Candidate | None, Episode]]:
    """Each attempt with its rank, from 1; equal rewards share one. Without rewards, the order of the sources."""
    if isinstance(group, Group):
        return [(0, None, episode) for episode in group.episodes]
    values = [candidate.reward.value for candidate in group.candidates]
    return [(1 + sum(other > one.reward.value for other in values), one, one.episode) for one in group.candidates]


def _test_case(task: Task) -> str:
    """A task as a line of a user's own tasks file."""
    case: dict[str, Any] = {"id": task.id, "prompt": task.prompt, "answer": task.answer}
    if task.gold is not None:
        case["call"] = {"tool": task.gold.tool, "arguments": dict(task.gold.arguments)}
    return json.dumps(case, ensure_ascii=False)


def _link(path: str, **query: Any) -> str:
    """A permanent link: everything that a page shows is in its address."""
    kept = {key: value for key, value in query.items() if value not in ("", None)}
    return f"{quote(path)}?{urlencode(kept)}" if kept else quote(path)


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}".rstrip("0").rstrip(".")


def _change(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:+.3f}"


def _sure(change: Mapping[str, float | None]) -> bool:
    """Whether the interval of a change excludes 0."""
    low, high = change["low"], change["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "now"


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
