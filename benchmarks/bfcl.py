"""Our matching of calls beside BFCL's own checker, verdict by verdict: ``python -m benchmarks.bfcl CHECKER``.

``CHECKER`` is a folder with the package ``bfcl_eval`` in it (Gorilla's, as its wheel unpacks); nothing of it is
installed. Both judge the published golds, in every spelling that a gold accepts, and answers that were changed in a
place or two; and both read answers as text. Its vendors' clients and parsers of other languages are left out.
"""

import argparse
import copy
import importlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from rl.data.tasks.benchmark import data_folder
from rl.evaluation.suites.bfcl import Item, mistake, read_items
from rl.evaluation.suites.bfcl_predictions import read_calls

_ELSEWHERE = ("tree_sitter", "tree_sitter_java", "tree_sitter_javascript", "tenacity", "filelock")
"""What the checker's package imports and matching Python calls does not need."""
_PLAIN = "plain"
"""The name of a model that writes function names without dots."""
_TEXTS = (
    "I cannot do that.",
    "sorry",
    "",
    "[]",
    "f(1)",
    "f(1, x=2)",
    "[f()]",
    "f()",
    "```\n[f(x=1)]\n```",
    "'f(x=1)'",
    "[f(x=1), g(y='a')]",
    "f(x=1), g(y='a')",
    "f(x=1) g(y=2)",
    '"f(x=1)"',
    "f(x=-y)",
    "f(x=-(1 + 2))",
    "f(x=1 + y)",
    "f(x=a + b)",
    "f(x=[1, 2] * 2, y='ab' * 3)",
    "f(x=-2**2, y=10 % 3 - ~4)",
    "f(x=6 & 3 | 8)",
    "f(x=1 / 0)",
    "f(x={'a': 1, **b})",
    "[f(x=1)], [g()]",
    "[f(x=1)][0]",
    "(f(x=1))",
    "[f(x=1)",
    "f(x=g(y=1))",
    "f(x=g())",
    "f(x=g(1))",
    "f(x=-1, y=-2.5)",
    "f(x=not True)",
    "f(x=+1)",
    "f(x=2*3, y=2**3, z=7//2, w=7%2)",
    "f(x='a' + 'b')",
    "f(x=(1, 2), y={'k': [1]})",
    "f(x={1, 2})",
    "f(x=true, y=false, z=null)",
    "f(x=True, y=None)",
    "f(x=a.b)",
    "f(x=a[0])",
    "f(x=a[1:2])",
    "f(x=lambda: 1)",
    "f(x=[i for i in y])",
    "f(x=1 if y else 2)",
    "f(x=1 < 2)",
    "f(x=...)",
    "f(**x)",
    "f(*x)",
    "a.b.c(x=1)",
    "a[0](x=1)",
    "f()(x=1)",
    "f(x='it''s')",
    'f(x="a\\nb")',
    "f(x=1); g(x=2)",
    "f(x=1)\ng(x=2)",
    "x = f(x=1)",
    "The answer is f(x=1).",
    "print(f'{x}')",
    "f(x=f'{y}')",
    "f(x=b'a')",
    "f(x=1e400)",
    "f(x=1j)",
    "3",
    "[3]",
    "[f(x=1), 3]",
)


def main() -> None:
    """Compare, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checker", type=Path, help="the folder with bfcl_eval in it")
    parser.add_argument("--data", type=Path, help="in BFCL's layout; bfcl below $APPRENTICE_DATA by default")
    parser.add_argument("--changes", type=int, default=40, help="changed answers of each question")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shown", type=int, default=5, help="differences that are printed, of each kind")
    parser.add_argument("--json", action="store_true", help="print one object of named figures")
    arguments = parser.parse_args()
    judge, decode = load(arguments.checker)
    items = list(read_items(arguments.data or data_folder("bfcl")).values())
    draw = random.Random(arguments.seed)
    figures: dict[str, Any] = {}
    for kind, pairs in (
        ("golds", [(item, calls) for item in items if item.golds for calls in spelled(item, draw)]),
        ("changed", [pair for item in items if item.golds for pair in changed(item, draw, arguments.changes)]),
    ):
        verdicts = [(item, calls, not mistake(item, calls), judge(item, calls)) for item, calls in pairs]
        figures |= {f"{kind}/{key}": value for key, value in counted([v[2:] for v in verdicts]).items()}
        unlike = [verdict for verdict in verdicts if verdict[2] is not verdict[3]]
        for item, calls, ours, theirs in unlike[: arguments.shown]:
            print(f"{kind} {item.id}: ours {ours}, theirs {theirs}: {calls} against {item.golds}", file=sys.stderr)
    texts = [*_TEXTS, *(text for item in items if item.golds for text in written(item, draw))]
    read = [(text, read_calls(text), decode(text)) for text in texts]
    unlike = [one for one in read if one[1] != one[2] and (one[1] or one[2])]
    figures |= {"texts/n": len(read), "texts/same": len(read) - len(unlike)}
    for text, ours, theirs in unlike[: arguments.shown * 10]:
        print(f"text {text!r}: ours {ours}, theirs {theirs}", file=sys.stderr)
    print(json.dumps(figures) if arguments.json else "\n".join(f"{key:<22}{value}" for key, value in figures.items()))


def counted(verdicts: list[tuple[bool, bool | None]]) -> dict[str, int]:
    """How often both say the same; where the checker itself fails on an answer, it says nothing."""
    found = Counter(verdicts)
    return {
        "n": len(verdicts),
        "same": found[True, True] + found[False, False],
        "both_right": found[True, True],
        "both_wrong": found[False, False],
        "ours_alone_right": found[True, False],
        "theirs_alone_right": found[False, True],
        "theirs_fails": found[True, None] + found[False, None],
        "theirs_fails_ours_right": found[True, None],
    }


def load(folder: Path) -> tuple[Callable[[Item, Any], bool | None], Callable[[str], Any]]:
    """The checker's verdict on the calls that answer a question, and its reading of a text as calls."""
    sys.path.insert(0, str(folder))
    models = ModuleType("bfcl_eval.constants.model_config")
    vars(models)["MODEL_CONFIG_MAPPING"] = {_PLAIN: SimpleNamespace(underscore_to_dot=True)}
    sys.modules["bfcl_eval.constants.model_config"] = models
    sys.modules |= {name: MagicMock() for name in _ELSEWHERE if name not in sys.modules}
    checker = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")
    reading = importlib.import_module("bfcl_eval.model_handler.utils")
    language = importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON

    def judge(item: Item, calls: Any) -> bool | None:
        functions, golds = list(item.functions.values()), list(item.golds)
        plain = [{name.replace(".", "_"): value for name, value in call.items()} for call in copy.deepcopy(calls)]
        try:
            return bool(checker.ast_checker(functions, plain, golds, language, item.category, _PLAIN)["valid"])
        except Exception:
            return None

    def decode(text: str) -> Any:
        try:
            calls = reading.default_decode_ast_prompting(text)
            return [
                {name: {str(key): one for key, one in given.items()}} for ((name, given),) in map(dict.items, calls)
            ]
        except Exception:
            return None

    return judge, decode


def spelled(item: Item, draw: random.Random, count: int = 6) -> Iterator[list[dict[str, Any]]]:
    """Gold answers: the first accepted values, the last ones, and drawn ones, with and without what is optional."""
    yield [_call(gold, lambda values: values[0]) for gold in item.golds]
    yield [_call(gold, lambda values: values[-1]) for gold in item.golds]
    for _ in range(count):
        calls = [_call(gold, draw.choice) for gold in item.golds]
        yield draw.sample(calls, len(calls))


def changed(item: Item, draw: random.Random, count: int) -> Iterator[tuple[Item, list[dict[str, Any]]]]:
    """Gold answers with one or two places changed."""
    for _ in range(count):
        calls = [_call(gold, draw.choice) for gold in item.golds]
        for _ in range(draw.choice([1, 1, 2])):
            calls = _changed(calls, item, draw)
        yield item, calls


def written(item: Item, draw: random.Random) -> Iterator[str]:
    """Gold answers as models write them in Python's form, whole and with a character changed."""
    calls = [_call(gold, draw.choice) for gold in item.golds]
    told = [
        f"{name}({', '.join(f'{key}={value!r}' for key, value in one.items())})"
        for ((name, one),) in map(dict.items, calls)
    ]
    text = f"[{', '.join(told)}]"
    yield text
    yield ", ".join(told)
    at = draw.randrange(len(text))
    yield text[:at] + text[at + 1 :]
    yield text[:at] + draw.choice("()[]{}'\",=. x1-") + text[at:]


def _call(gold: Mapping[str, Any], choose: Callable[[Any], Any]) -> dict[str, Any]:
    ((name, arguments),) = gold.items()
    chosen = {key: _value(choose(values), choose) for key, values in arguments.items() if values}
    return {name: {key: value for key, value in chosen.items() if value != ""}}


def _value(one: Any, choose: Callable[[Any], Any]) -> Any:
    """A value as an answer has it: what a gold's objects accept for each key is a list again."""
    if isinstance(one, dict):
        chosen = {key: _value(choose(values), choose) for key, values in one.items() if isinstance(values, list)}
        return {key: value for key, value in chosen.items() if value != ""}
    return [_value(part, choose) for part in one] if isinstance(one, list) else one


def _changed(calls: list[dict[str, Any]], item: Item, draw: random.Random) -> list[dict[str, Any]]:
    """The same calls with one place changed."""
    calls = copy.deepcopy(calls)
    kind = draw.choice(("call", "name", "key", "value", "value", "value", "value", "value"))
    if kind == "call" or not calls:
        again = copy.deepcopy(draw.choice(calls)) if calls else {next(iter(item.functions)): {}}
        return draw.choice([calls[:-1], [*calls, again], calls[::-1], []])
    call = draw.choice(calls)
    ((name, arguments),) = call.items()
    keys = list(arguments)
    if kind == "name":
        del call[name]
        call[draw.choice([*item.functions, f"{name}_", name.upper(), name.replace(".", "_")])] = arguments
    elif kind == "key" or not keys:
        key = draw.choice([*keys, "more"])
        value = arguments.pop(key, 1)
        if draw.random() < 0.5:
            arguments[draw.choice([f"{key}_", key.upper(), "more"])] = value
    else:
        key = draw.choice(keys)
        arguments[key] = _other(arguments[key], draw)
    return calls


def _other(value: Any, draw: random.Random) -> Any:
    """Another value, near or far."""
    options: list[Any] = [None, True, 0, 1.5, "", "other", [], [value], {}, (value,), str(value)]
    if isinstance(value, str):
        options += [
            value.upper(),
            f" {value}.",
            value.replace(" ", "-"),
            value[:-1],
            f"{value}'",
            value.replace("'", '"'),
        ]
        options += [value.split(), int(value) if value.isascii() and value.isdecimal() else value]
    elif isinstance(value, bool):
        options += [not value, int(value), str(value).lower()]
    elif isinstance(value, int | float):
        options += [value + 1, -value, float(value), int(value), f"{value}", value + 1e-9]
    elif isinstance(value, list) and value:
        part = draw.randrange(len(value))
        options += [value[::-1], value[:-1], [*value, value[0]], tuple(value), [str(one) for one in value]]
        options += [[*value[:part], _other(value[part], draw), *value[part + 1 :]] for _ in range(4)]
    elif isinstance(value, dict) and value:
        key = draw.choice(list(value))
        rest = {name: one for name, one in value.items() if name != key}
        options += [rest, {**value, "more": 1}, {**rest, key.upper(): value[key]}]
        options += [{**value, key: _other(value[key], draw)} for _ in range(4)]
    return draw.choice(options)


if __name__ == "__main__":
    main()
