"""docs/config.md: every key of every config, from the models that check them. ``python -m rl.planning.reference``."""

import ast
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from rl.config import There
from rl.recipes.registry import every_config_class

_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "at least", "pattern": "of the form"}
_HEAD = """# Config reference

Every key, from the models that check a config before anything starts. `python -m rl.planning.reference docs/config.md`
writes this page. A key that is not here is an error, with the nearest that is; `apprentice check CONFIG` tells every
mistake at once. `key.path=value` after a config lays values over it, as in `improvement.rounds=10` or
`sources.0.count=3`.

Where a part has several kinds, `kind` chooses, and only that kind's keys may stand beside it.
"""


def reference() -> str:
    """The page."""
    pages = [_HEAD]
    shown: dict[type[BaseModel], str] = {}
    for recipe, model in every_config_class().items():
        todo, titles = [model], {model: f"Recipe {recipe}"}
        while todo:
            current = todo.pop(0)
            if current in shown:
                continue
            found = [part for field in current.model_fields.values() for part in _models(field.rebuild_annotation())]
            for part in found:
                if part not in shown and part not in titles:
                    titles[part] = _title(part, recipe, {*shown.values(), *titles.values()})
                    todo.append(part)
            shown[current] = titles[current]
            pages.append(_section(current, {**shown, **titles}, top=current is model))
    return "\n".join(pages)


def _section(model: type[BaseModel], titles: Mapping[type[BaseModel], str], *, top: bool) -> str:
    lines = [
        f"{'##' if top else '###'} {titles[model]}",
        "",
        f"{_first(model)} (`{model.__module__}.{model.__name__}`)",
    ]
    lines += ["", "| key | takes | default | |", "|---|---|---|---|"]
    notes = _notes(model)
    for name, field in model.model_fields.items():
        takes = _taken(field.rebuild_annotation(), titles, field.metadata)
        lines.append(f"| `{name}` | {takes} | {_default(field)} | {notes.get(name, '')} |")
    return "\n".join([*lines, ""])


def _title(model: type[BaseModel], recipe: str, taken: set[str]) -> str:
    kind = model.model_fields.get("kind")
    only = kind is not None and len(typing.get_args(kind.annotation)) == 1
    name = f"{model.__name__} (kind {kind.default})" if kind is not None and only else model.__name__
    return name if name not in taken else f"{name} of {recipe}"


def _first(model: type[BaseModel]) -> str:
    paragraph = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0]
    return _cell(paragraph)


def _notes(model: type[BaseModel]) -> dict[str, str]:
    """By field, what stands below it in the source; those of parent models too."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (issubclass(base, BaseModel) and base is not BaseModel):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = typing.cast(ast.ClassDef, tree).body
        for statement, following in zip(body, body[1:], strict=False):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            found.pop(statement.target.id, None)
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                found[statement.target.id] = _cell(inspect.cleandoc(str(following.value.value)))
    return found


def _taken(annotation: Any, titles: Mapping[type[BaseModel], str], metadata: list[Any]) -> str:
    """What a key takes, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _taken(arguments[0], titles, [*metadata, *annotation.__metadata__])
    bounds = _bounds(metadata)
    if annotation is type(None):
        return "none"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return ", ".join(dict.fromkeys(_taken(part, titles, []) for part in arguments)) + bounds
    if origin is list:
        return f"list of {_taken(arguments[0], titles, [])}{bounds}"
    if origin is tuple:
        return f"list of {len(arguments)}: {', '.join(_taken(part, titles, []) for part in arguments)}"
    if origin in (dict, Mapping):
        return f"mapping of names to {_taken(arguments[1], titles, [])}{bounds}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{titles[annotation]}](#{_anchor(titles[annotation])})"
    place = next((mark.kind for mark in metadata if isinstance(mark, There)), None)
    if place is not None:
        return {"file": "a file", "folder": "a folder", "model": "a model's directory"}[place]
    names = {bool: "yes or no", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, getattr(annotation, "__name__", "anything")) + bounds


def _bounds(metadata: list[Any]) -> str:
    found = []
    for mark in metadata:
        for name, sign in _BOUNDS.items():
            if (value := getattr(mark, name, None)) is not None:
                found.append(f"{sign} `{value}`" if name == "pattern" else f"{sign} {value}")
    return f", {', '.join(dict.fromkeys(found))}" if found else ""


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "**needed**"
    default = _plain(default)
    if default in ({}, [], ""):
        return "empty" if default != {} else "its own"
    text = yaml.safe_dump(default, default_flow_style=True, width=10**6, sort_keys=False)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _plain(value: Any) -> Any:
    """A default as YAML has it; of a model, what it has beyond its own defaults."""
    if isinstance(value, BaseModel):
        kind = type(value).model_fields.get("kind")
        return {**({"kind": kind.default} if kind else {}), **value.model_dump(mode="json", exclude_defaults=True)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _cell(text: str) -> str:
    """A docstring as one cell of a table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(reference())
    else:
        print(reference())
