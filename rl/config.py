"""From YAML to validated models: a key that nothing reads is an error before any process starts.

Each part's settings stand beside the part (objectives with the losses, rankings with the rewards, and so on); a recipe
puts them together. Here is what reads a file, lays ``key.path=value`` overrides over it, and words the mistakes.
"""

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from executors.errors import ConfigError


class Strict(BaseModel):
    """A frozen model that takes no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


C = TypeVar("C", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """A config file as nested dictionaries.

    Raises:
        ConfigError: there is no such file, or it is not a YAML mapping.
    """
    if not path.is_file():
        there = sorted(str(found) for found in Path("configs").glob("*/*.yaml"))
        close = difflib.get_close_matches(str(path), there, n=3, cutoff=0.3) or there[:3]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(f"no config at {path}{hint}")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; a config is a mapping of keys to values")
    return content


def override(content: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Lay ``a.b.c=value`` assignments over a config; values are read as YAML.

    Lists are indexed by number (``sources.0.count=3``).

    Raises:
        ConfigError: an assignment without ``=``, or a path through something that has no keys.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(content), sort_keys=False))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"override {assignment!r} has no '='; write key.path=value, such as seed=1")
        node: Any = result
        *parents, last = path.split(".")
        try:
            for key in parents:
                node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
            node[int(last) if isinstance(node, list) else last] = yaml.safe_load(text)
        except (TypeError, ValueError, IndexError, AttributeError, yaml.YAMLError) as error:
            raise ConfigError(f"override {assignment!r} leads nowhere: {error}") from error
    return result


def validate(content: Mapping[str, Any], model: type[C], origin: str) -> C:
    """Check a config against its model.

    Args:
        content: the config.
        model: what it has to be.
        origin: where it came from, for the message.

    Raises:
        ConfigError: every mistake, one a line, with the nearest valid key for an unknown one.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [_worded(detail, model) for detail in error.errors()]
        raise ConfigError(f"{origin}: " + "\n".join(dict.fromkeys(lines))) from error


def _worded(detail: Any, model: type[BaseModel]) -> str:
    location = detail["loc"]
    shown, fields = _follow(model, location[:-1] if detail["type"] == "extra_forbidden" else location)
    if detail["type"] == "extra_forbidden":
        key = str(location[-1])
        close = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
        remedy = f"did you mean {close[0]!r}?" if close else f"the keys here are {', '.join(fields)}"
        return f"unknown key {'.'.join([*shown, key])!r}; {remedy}"
    path = ".".join(shown) or "the config"
    if detail["type"] == "missing":
        return f"{path!r} is missing"
    if detail["type"] == "union_tag_invalid":
        return f"{path}: no kind {detail['ctx']['tag']!r}; there are {detail['ctx']['expected_tags']}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error" and not location:
        return message
    return f"{path}: {message[0].lower()}{message[1:]}, got {detail['input']!r}"


def _follow(model: Any, location: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """The path as a user writes it (without the tags of unions), and the keys that are valid at its end."""
    shown: list[str] = []
    current: Any = model
    for part in location:
        members = _members(current)
        tagged = [member for member in members if _tag(member) == part]
        if len(members) > 1 and tagged:
            current = tagged[0]
            continue
        shown.append(str(part))
        current = _child(members[0] if members else None, part)
    fields = [field for member in _members(current) if _is_model(member) for field in member.model_fields]
    return shown, fields


def _members(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tag(annotation: Any) -> Any:
    field = annotation.model_fields.get("kind") if _is_model(annotation) else None
    return field.default if field else None


def _child(annotation: Any, part: int | str) -> Any:
    if _is_model(annotation):
        field = annotation.model_fields.get(str(part))
        return field.rebuild_annotation() if field else None
    arguments = typing.get_args(annotation)
    return arguments[-1] if typing.get_origin(annotation) in (dict, Mapping) else arguments[0] if arguments else None
