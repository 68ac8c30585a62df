"""BFCL's single-turn categories by its published matching of calls (Gorilla, ``ast_checker``): simple, multiple,
parallel, and irrelevance, where the right thing is to make no call.

A gold call lists the values that are accepted for each argument; an empty text among them makes it optional. Texts are
compared without case, spaces and ``,./-_*^``. An integer is a float; nothing else is converted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from executors.errors import DataError

Call: TypeAlias = Mapping[str, Mapping[str, Any]]
"""One call: the function's name and its arguments."""
Gold: TypeAlias = Mapping[str, Mapping[str, Sequence[Any]]]

CATEGORIES = ("simple_python", "multiple", "parallel", "irrelevance")
_TYPES: Mapping[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_IGNORED = re.compile(r"[ \,\.\/\-\_\*\^]")


@dataclass(frozen=True, slots=True)
class Item:
    """One question."""

    id: str
    category: str
    prompt: str
    functions: Mapping[str, Mapping[str, Any]]
    """Descriptions by name."""
    golds: tuple[Gold, ...]
    """The expected calls; none of a question that no function answers."""


def read_items(folder: Path) -> dict[str, Item]:
    """The questions of a folder in BFCL's layout, by id.

    Raises:
        DataError: it holds none, or a file is not in that form.
    """
    items: dict[str, Item] = {}
    for category in CATEGORIES:
        path = folder / f"BFCL_v4_{category}.json"
        if not path.is_file():
            continue
        answers = folder / "possible_answer" / path.name
        golds = {row["id"]: tuple(row["ground_truth"]) for row in _rows(answers)} if answers.is_file() else {}
        for row in _rows(path):
            try:
                messages = [message for turn in row["question"] for message in turn]
                prompt = "\n".join(message["content"] for message in messages)
                functions = {function["name"]: function for function in row["function"]}
                items[row["id"]] = Item(row["id"], category, prompt, functions, golds.get(row["id"], ()))
            except (KeyError, TypeError) as error:
                raise DataError(f"{path}: {row.get('id', 'a row')!r} is not in BFCL's form ({error!r})") from error
    if not items:
        raise DataError(f"{folder} has no BFCL file such as BFCL_v4_{CATEGORIES[0]}.json")
    return items


def mistake(item: Item, calls: Sequence[Call] | None) -> str:
    """What is wrong with the calls that answer a question; empty where they are right.

    Args:
        item: the question.
        calls: what was called; None where the answer could not be read as calls.
    """
    if item.category == "irrelevance":
        return "a call was made, and no function fits" if calls else ""
    if calls is None:
        return "the answer cannot be read as calls"
    if len(calls) != len(item.golds):
        return f"{len(calls)} calls instead of {len(item.golds)}"
    left = list(calls)
    for gold in item.golds:
        wrong = [_call_mistake(item, gold, call) for call in left]
        if "" not in wrong:
            return wrong[0] if len(wrong) == 1 else f"no call fits {next(iter(gold))!r}: {'; '.join(wrong)}"
        del left[wrong.index("")]
    return ""


def _call_mistake(item: Item, gold: Gold, call: Call) -> str:
    ((expected, accepted),) = gold.items()
    ((name, arguments),) = call.items()
    if _plain(name) != _plain(expected):
        return f"{name!r} is called instead of {expected!r}"
    schema = item.functions[expected]["parameters"]
    for required in schema.get("required", ()):
        if required not in arguments:
            return f"{required!r} is missing"
    for key, value in arguments.items():
        if key not in schema["properties"] or key not in accepted:
            return f"{key!r} is not an argument"
        if wrong := _value_mistake(key, value, accepted[key], schema["properties"][key]):
            return wrong
    for key, values in accepted.items():
        if key not in arguments and "" not in values:
            return f"{key!r} is missing"
    return ""


def _plain(name: str) -> str:
    """A name as models write it that may not use dots."""
    return name.replace(".", "_")


def _value_mistake(key: str, value: Any, accepted: Sequence[Any], schema: Mapping[str, Any]) -> str:
    kind = schema["type"]
    wanted = _TYPES[kind]
    nested = _TYPES.get(schema.get("items", {}).get("type")) if kind in ("array", "tuple") else None
    if kind == "tuple" and type(value) is tuple:
        value = list(value)
    if kind == "float" and type(value) is int:
        value = float(value)
    fits, variable = _type_fits(value, accepted, wanted, nested)
    if not fits:
        return f"{key!r} is a {type(value).__name__}, not a {kind}"
    if not variable:
        if wanted is dict:
            return _dict_mistake(key, value, accepted)
        if wanted is list and nested is dict:
            return _dicts_mistake(key, value, accepted)
        if wanted is str:
            known = [_standard(one) for one in accepted if isinstance(one, str)]
            return "" if _standard(value) in known else f"{key!r} is {value!r}"
        if wanted is list:
            known = [[_standard(part) for part in one] for one in accepted if isinstance(one, list | str | tuple)]
            return "" if [_standard(part) for part in value] in known else f"{key!r} is {value!r}"
    return "" if value in accepted else f"{key!r} is {value!r}"


def _type_fits(value: Any, accepted: Any, wanted: type, nested: type | None) -> tuple[bool, bool]:
    """Whether a value has the described type or that of the golds; and whether the golds have another one than is
    described (a variable's name, for example), so that they alone are compared with.
    """
    typed = next((type(one) for one in accepted if one != ""), None) if isinstance(accepted, list | tuple) else None
    variable = typed is not None and typed is not wanted
    if type(value) is wanted:
        if nested is None:
            return True, variable
        for one in accepted:
            if not isinstance(one, list):
                continue
            if all(_type_fits(part, one, nested, None)[0] for part in value):
                return True, variable
        return False, variable
    return (True, True) if typed is not None and type(value) is typed else (False, variable)


def _dict_mistake(key: str, value: Mapping[str, Any], accepted: Sequence[Any]) -> str:
    wrong = f"{key!r} is {value!r}"
    for one in accepted:
        if one == "":
            continue
        wrong = _against(key, value, one)
        if not wrong:
            return ""
    return wrong


def _against(key: str, value: Mapping[str, Any], one: Mapping[str, Sequence[Any]]) -> str:
    for name, given in value.items():
        if name not in one:
            return f"{key}.{name} is not expected"
        if _standard(given) not in [_standard(known) for known in one[name]]:
            return f"{key}.{name} is {given!r}"
    for name, known in one.items():
        if name not in value and "" not in known:
            return f"{key}.{name} is missing"
    return ""


def _dicts_mistake(key: str, value: Sequence[Any], accepted: Sequence[Any]) -> str:
    wrong = f"{key!r} is {value!r}"
    for one in accepted:
        if len(value) != len(one):
            wrong = f"{key!r} has {len(value)} parts"
            continue
        wrong = next(
            (told for part, known in zip(value, one, strict=True) if (told := _dict_mistake(key, part, [known]))), ""
        )
        if not wrong:
            return ""
    return wrong


def _standard(value: Any) -> Any:
    """A text without what does not count; anything else as it is."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON lines: {error}") from error
