"""From YAML to validated models: a key that nothing reads is an error before any process starts.

Each part's settings stand beside the part (objectives with the losses, rankings with the rewards, and so on); a recipe
puts them together. Here is what reads a file, lays ``key.path=value`` overrides over it, and words the mistakes.
"""

import copy
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from executors.errors import ConfigError
from executors.settings import Strict as Strict
from executors.settings import members


@dataclass(frozen=True, slots=True)
class There:
    """Says of a field that it names something on this machine that a run reads."""

    kind: Literal["file", "folder", "model"]


FilePath = Annotated[str, There("file")]
FolderPath = Annotated[str, There("folder")]
ModelPath = Annotated[str, There("model")]

C = TypeVar("C", bound=BaseModel)
_ROUNDS = 4
"""Times that a config is looked at again without the mistakes that hid others."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A config file as nested dictionaries.

    Raises:
        ConfigError: there is no such file, or it is not a YAML mapping.
    """
    if not path.is_file():
        there = sorted(str(found) for found in Path("configs").glob("*/*.yaml"))
        close = difflib.get_close_matches(str(path), there, n=3, cutoff=0.3) or there[:3]
        hint = f"; did you mean {', '.join(close)}?" if close else "; 'apprentice init my_tools.py' writes one"
        raise ConfigError(f"no config at {path}{hint}")
    try:
        content = yaml.load(path.read_text(), _Loader)
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
    mistakes, config = examine(content, model)
    if config is None or mistakes:
        raise ConfigError(told(origin, mistakes))
    return config


def examine(content: Mapping[str, Any], model: type[C]) -> tuple[list[str], C | None]:
    """Find every mistake in a config.

    Contradictions between settings show only once each setting is right by itself. So what a misspelt key was meant to
    say is taken as said, and the rest is looked at again.

    Args:
        content: the config.
        model: what it has to be.

    Returns:
        The mistakes, one a line; and the config as it was meant, where that can be told.
    """
    mistakes: list[str] = []
    meant: Any = copy.deepcopy(dict(content))
    for _ in range(_ROUNDS):
        try:
            return mistakes, model.model_validate(meant)
        except ValidationError as error:
            details = error.errors()
            unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
            for detail in details:
                if unknown and detail["type"] == "missing":
                    continue  # perhaps it is what was misspelt
                mistakes += [line for line in _worded(detail, model).splitlines() if line not in mistakes]
            if not unknown:
                return mistakes, None
            for location in unknown:
                _mend(meant, location, model)
    return mistakes, None


def told(origin: str, mistakes: Sequence[str]) -> str:
    """Mistakes of a config as one message."""
    if len(mistakes) == 1:
        return f"{origin}: {mistakes[0]}"
    return f"{origin}: {len(mistakes)} mistakes\n" + "\n".join(f"  {line}" for line in mistakes)


def parts(config: BaseModel, path: str = "") -> Iterator[tuple[str, BaseModel]]:
    """Every model in a config with its key path, from the outside in."""
    yield path, config
    for name in type(config).model_fields:
        yield from _parts_in(getattr(config, name), f"{path}.{name}" if path else name)


def named_places(model: BaseModel) -> Iterator[tuple[str, str, There]]:
    """The fields of one model that name something on this machine: key, value, and what it should be."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        marks = [*field.metadata, *_marks(field.annotation)]
        for place in (mark for mark in marks if isinstance(mark, There)):
            several = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
            for path in several:
                if path:
                    yield name, str(path), place


class _Loader(yaml.SafeLoader):
    """Takes no key twice: YAML would keep the last and drop the others."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key) for key, _ in node.value]  # type: ignore[no-untyped-call]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            line = node.value[number][0].start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: the key {key!r} is there already; keep one of them")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _parts_in(value: Any, path: str) -> Iterator[tuple[str, BaseModel]]:
    if isinstance(value, BaseModel):
        yield from parts(value, path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts_in(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _parts_in(item, f"{path}.{number}")


def _marks(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    for part in typing.get_args(annotation):
        yield from _marks(part)


def _mend(content: Any, location: Sequence[int | str], model: Any) -> None:
    """Give an unknown key the name that it was meant to have, or leave it out."""
    shown, ends = _follow(model, location[:-1])
    node = content
    for part in shown:
        node = node[int(part)] if isinstance(node, list) else node[part]
    key = str(location[-1])
    value = node.pop(key)
    close = difflib.get_close_matches(key, _keys(ends), n=1, cutoff=0.5)
    if close:
        node.setdefault(close[0], value)


def _worded(detail: Any, model: type[BaseModel]) -> str:
    location = detail["loc"]
    shown, ends = _follow(model, location[:-1] if detail["type"] == "extra_forbidden" else location)
    if detail["type"] == "extra_forbidden":
        key = str(location[-1])
        close = difflib.get_close_matches(key, _keys(ends), n=1, cutoff=0.5)
        remedy = f"did you mean {close[0]!r}?" if close else f"the keys here are {', '.join(_keys(ends))}"
        return f"unknown key {'.'.join([*shown, key])!r}; {remedy}"
    path = ".".join(shown) or "the config"
    if detail["type"] == "missing":
        return f"{path!r} is missing"
    if detail["type"] == "union_tag_not_found":
        kinds = ", ".join(str(tag) for member in ends if (tag := _tag(member)))
        return f"{path}: 'kind' is missing; there are {kinds}, as in {path}.kind=..."
    if detail["type"] == "union_tag_invalid":
        tag, expected = detail["ctx"]["tag"], detail["ctx"]["expected_tags"]
        return f"{path}: no kind {tag!r}; there are {expected}{_meant(tag, expected)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return "\n".join(_placed(line, shown, detail["input"]) for line in message.splitlines())
    close = _meant(detail["input"], detail["ctx"]["expected"]) if detail["type"] == "literal_error" else ""
    return f"{path}: {message[0].lower()}{message[1:]}, got {_cut(repr(detail['input']))}{close}"


def _placed(line: str, shown: Sequence[str], value: object) -> str:
    """What a validator of ours says, with the path to where it says it."""
    if not shown:
        return line
    if line.partition(":")[0].isidentifier():  # it names a key of its model
        return ".".join([*shown, line])
    return f"{'.'.join(shown)}: {line}" + ("" if isinstance(value, Mapping) else f", got {_cut(repr(value))}")


def _meant(value: object, expected: str) -> str:
    """A hint at the nearest of some names that stand in quotes."""
    close = difflib.get_close_matches(str(value), expected.split("'")[1::2], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _follow(model: Any, location: Sequence[int | str]) -> tuple[list[str], list[Any]]:
    """The path as a user writes it (without the tags of unions), and what may stand at its end."""
    shown: list[str] = []
    current: Any = model
    for part in location:
        there = members(current)
        tagged = [member for member in there if _tag(member) == part]
        if len(there) > 1 and tagged:
            current = tagged[0]
            continue
        shown.append(str(part))
        current = _child(there[0] if there else None, part)
    return shown, list(members(current))


def _keys(ends: Sequence[Any]) -> list[str]:
    """The keys that are valid in any of them."""
    return [field for member in ends if _is_model(member) for field in member.model_fields]


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
