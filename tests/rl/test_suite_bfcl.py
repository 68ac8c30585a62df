"""BFCL's matching of calls, on its own golds and on calls that were changed in one place."""

import json
import random

import pytest

from executors.errors import ConfigError, DataError
from rl.evaluation.suites.bfcl import Item, mistake, read_items
from rl.evaluation.suites.bfcl_predictions import read_answers, read_calls, score
from rl.evaluation.suites.command import evaluate_suite
from tests.executors.shared_data import shared


def item(properties: dict, accepted: dict, required: tuple[str, ...] = (), category: str = "simple_python") -> Item:
    schema = {"type": "dict", "properties": properties, "required": list(required)}
    return Item("x_0", category, "?", {"a.f": {"name": "a.f", "parameters": schema}}, ({"a.f": accepted},))


TEXT, WHOLE, FLOAT = {"type": "string"}, {"type": "integer"}, {"type": "float"}


@pytest.mark.parametrize(
    ("properties", "accepted", "given", "told"),
    [
        ({"x": WHOLE}, {"x": [5]}, {"x": 5}, ""),
        ({"x": WHOLE}, {"x": [5]}, {"x": 6}, "'x' is 6"),
        ({"x": WHOLE}, {"x": [5]}, {"x": 5.0}, "'x' is a float, not a integer"),
        ({"x": WHOLE}, {"x": [5]}, {"x": "5"}, "'x' is a str, not a integer"),
        ({"x": FLOAT}, {"x": [5.0]}, {"x": 5}, ""),
        ({"x": FLOAT}, {"x": [5.0]}, {"x": True}, "'x' is a bool, not a float"),
        ({"x": TEXT}, {"x": ["New York"]}, {"x": "new-york"}, ""),
        ({"x": TEXT}, {"x": ["New York"]}, {"x": "NY"}, "'x' is 'NY'"),
        ({"x": TEXT}, {"x": ["it's"]}, {"x": 'it"s'}, ""),
        ({"x": WHOLE}, {"x": [5, ""]}, {}, ""),
        ({"x": WHOLE}, {"x": [5]}, {}, "'x' is missing"),
        ({"x": WHOLE}, {"x": [5]}, {"x": 5, "y": 1}, "'y' is not an argument"),
        ({"x": WHOLE}, {"x": ["size"]}, {"x": "size"}, ""),
        ({"x": {"type": "array", "items": WHOLE}}, {"x": [[1, 2]]}, {"x": [1, 2]}, ""),
        ({"x": {"type": "array", "items": WHOLE}}, {"x": [[1, 2]]}, {"x": [2, 1]}, "'x' is [2, 1]"),
        ({"x": {"type": "array", "items": WHOLE}}, {"x": [[1, 2]]}, {"x": ["1", "2"]}, "'x' is a list, not a array"),
        ({"x": {"type": "array", "items": TEXT}}, {"x": [["A b"]]}, {"x": ["ab"]}, ""),
        ({"x": {"type": "tuple", "items": WHOLE}}, {"x": [[1, 2]]}, {"x": (1, 2)}, ""),
        ({"x": {"type": "dict"}}, {"x": [{"k": ["A"], "o": [1, ""]}]}, {"x": {"k": "a"}}, ""),
        ({"x": {"type": "dict"}}, {"x": [{"k": ["A"]}]}, {"x": {"k": "b"}}, "x.k is 'b'"),
        ({"x": {"type": "dict"}}, {"x": [{"k": ["A"]}]}, {"x": {"k": "a", "z": 1}}, "x.z is not expected"),
        ({"x": {"type": "dict"}}, {"x": [{"k": ["A"]}]}, {"x": {}}, "x.k is missing"),
        (
            {"x": {"type": "array", "items": {"type": "dict"}}},
            {"x": [[{"k": [1]}, {"k": [2]}]]},
            {"x": [{"k": 1}]},
            "'x' has 1 parts",
        ),
        ({"x": {"type": "boolean"}}, {"x": [True]}, {"x": True}, ""),
        ({"x": {"type": "boolean"}}, {"x": [True]}, {"x": "true"}, "'x' is a str, not a boolean"),
    ],
)
def test_an_argument_is_compared_as_published(properties, accepted, given, told):
    assert mistake(item(properties, accepted), [{"a_f": given}]) == told


def test_calls_are_counted_named_and_found_in_any_order():
    one = item({"x": WHOLE}, {"x": [1]}, ("x",))
    assert mistake(one, []) == "0 calls instead of 1"
    assert mistake(one, None) == "the answer cannot be read as calls"
    assert mistake(one, [{"g": {"x": 1}}]) == "'g' is called instead of 'a.f'"
    assert mistake(one, [{"a.f": {}}]) == "'x' is missing"
    golds = ({"a.f": {"x": [1]}}, {"a.f": {"x": [2]}})
    both = Item("p_0", "parallel", "?", one.functions, golds)
    assert mistake(both, [{"a.f": {"x": 2}}, {"a.f": {"x": 1}}]) == ""
    assert "no call fits" in mistake(both, [{"a.f": {"x": 2}}, {"a.f": {"x": 2}}])


def test_where_no_function_fits_any_call_is_wrong_and_words_are_right():
    one = item({}, {}, category="irrelevance")
    assert mistake(one, [{"a.f": {}}]) != ""
    assert mistake(one, []) == mistake(one, None) == ""


@pytest.mark.parametrize(
    ("result", "calls"),
    [
        ('[a.f(x=1, y="b")]', [{"a.f": {"x": 1, "y": "b"}}]),
        ("a.f(x=-1.5, y=[1, 2], z={'k': True}), g()", [{"a.f": {"x": -1.5, "y": [1, 2], "z": {"k": True}}}, {"g": {}}]),
        ("[f(x=2*3, y=(1, 2), z=size, w=true)]", [{"f": {"x": 6, "y": (1, 2), "z": "size", "w": "true"}}]),
        ("f(x=2**2, y='a' * 2, z=g(1), v=a[0])", [{"f": {"x": 4, "y": "aa", "z": "g(1)", "v": "a[0]"}}]),
        ("f(1, x=2)", [{"f": {"x": 2}}]),
        ("[f(x=1)", [{"f": {"x": 1}}]),
        ("f(x=1)]", [{"f": {"x": 1}}]),
        ("f(x=+1)", [{"f": {"x": -1}}]),
        ("f(x=-y)", None),
        ("f(x=-2**2)", None),
        ("f(x=a + b)", None),
        ("f(x=2**9999999)", None),
        ("f(x=((9**999)**999)**999)", None),
        ("f(x=2**999)", [{"f": {"x": 2**999}}]),
        ("f(x='%999999999d' % 1)", None),
        ("f(x='%3d' % 1)", [{"f": {"x": "  1"}}]),
        ("f(x='a' * 99999999)", None),
        ("f(x={1, 2})", None),
        ('"f(x=1)"', None),
        ([{"f": '{"x": 1}'}], [{"f": {"x": 1}}]),
        ('[{"name": "f", "arguments": {"x": 1}}]', [{"f": {"x": 1}}]),
        ([{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}], [{"f": {}}]),
        ({"f": {}}, [{"f": {}}]),
        ([], []),
        ("I cannot do that.", None),
        ("__import__('os').system('x')", [{"system": {}}]),
        ([3], None),
        ("[" * 5000, None),
        (None, None),
    ],
)
def test_answers_are_read_in_pythons_form_and_as_json_and_never_run(result, calls):
    assert read_calls(result) == calls


def _value(accepted):
    """The first value that is accepted; None where an argument may only be left out."""
    found = [value for value in accepted if value != ""]
    if not found:
        return None
    if isinstance(found[0], dict):
        return {key: one for key, values in found[0].items() if (one := _value(values)) is not None}
    if isinstance(found[0], list) and found[0] and isinstance(found[0][0], dict):
        return [{key: one for key, values in part.items() if (one := _value(values)) is not None} for part in found[0]]
    return found[0]


def gold_calls(one: Item) -> list[dict]:
    return [
        {name: {key: value for key, accepted in arguments.items() if (value := _value(accepted)) is not None}}
        for gold in one.golds
        for name, arguments in gold.items()
    ]


def test_every_published_gold_is_right_and_a_change_in_one_place_is_wrong():
    items = read_items(shared("bfcl"))
    assert len(items) == 400 + 200 + 200 + 240
    draw = random.Random(0)
    for one in items.values():
        calls = gold_calls(one)
        assert mistake(one, calls) == "", one.id
        if one.category == "irrelevance":
            continue
        assert mistake(one, calls[:-1]) and mistake(one, [*calls, calls[0]])
        changed = json.loads(json.dumps(calls))
        ((name, arguments),) = draw.choice(changed).items()
        assert mistake(one, [{"no_such_function": {}}, *calls[1:]])
        arguments["no_such_argument"] = 1
        assert mistake(one, changed)
        del arguments["no_such_argument"]
        if arguments:
            key = draw.choice(sorted(arguments))
            arguments[key] = {"of another": ["kind"]}
            assert mistake(one, changed), (one.id, name, key)


def test_a_file_is_scored_by_category_and_what_is_not_answered_is_wrong(tmp_path, capsys):
    items = read_items(shared("bfcl"))
    rows = [{"id": f"simple_python_{n}", "result": gold_calls(items[f"simple_python_{n}"])} for n in range(100)]
    rows += [{"id": "irrelevance_0", "result": "I cannot."}, {"id": "irrelevance_1", "result": "[f()]"}]
    rows += [{"id": "nobody_asked", "result": []}, {"id": "simple_python_0", "result": "x"}]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    evaluate_suite("bfcl", path, None, [], as_json=True, out=tmp_path / "all.json")
    told = capsys.readouterr()
    figures = json.loads(told.out)
    assert (figures["simple_python"]["n"], figures["simple_python"]["correct"]) == (400, 100)
    assert (figures["simple_python"]["accuracy"], figures["simple_python"]["unanswered"]) == (25.0, 300)
    assert (figures["irrelevance"]["n"], figures["irrelevance"]["correct"]) == (240, 1)
    assert set(figures) == {"simple_python", "irrelevance", "overall"}
    assert "answers 'nobody_asked'" in told.err and "once more" in told.err
    wrong = json.loads((tmp_path / "all.json").read_text())["wrong"]
    assert wrong["irrelevance_1"] == "a call was made, and no function fits"


def test_a_file_that_cannot_be_scored_is_refused(tmp_path):
    items = read_items(shared("bfcl"))
    path = tmp_path / "answers.jsonl"
    for text in ("{", '{"id": "nobody"}', ""):
        path.write_text(text)
        with pytest.raises(DataError):
            read_answers(path, items)
    with pytest.raises(DataError, match="has no BFCL file"):
        read_items(tmp_path)
    with pytest.raises(ConfigError, match="--predictions"):
        evaluate_suite("bfcl", None, None, [], as_json=True, out=None)
    assert score(items, read_answers(_one(tmp_path), items))["figures"]["overall"]["n"] == 400


def _one(folder):
    path = folder / "one.jsonl"
    path.write_text('{"id": "simple_python_0", "result": "x"}')
    return path


def _spoken(value, draw):
    """A value in another spelling that the published rule takes for the same: case, spaces, punctuation of texts."""
    if isinstance(value, str):
        return "".join(draw.choice((letter.upper(), letter.lower())) for letter in value).replace(
            "_", draw.choice("-. ^")
        )
    if isinstance(value, list):
        return [_spoken(part, draw) for part in value]
    if isinstance(value, dict):
        return {key: _spoken(part, draw) for key, part in value.items()}
    return value


def test_what_the_published_rule_takes_for_the_same_is_right():
    """Other spellings of texts, whole numbers for floats, names with underscores, calls in another order."""
    draw, seen = random.Random(1), dict.fromkeys(("spelled", "whole", "plain", "ordered", "shorter", "other"), 0)
    for one in read_items(shared("bfcl")).values():
        if one.category == "irrelevance":
            continue
        calls = gold_calls(one)
        if len(calls) > 1:
            seen["ordered"] += 1
            assert mistake(one, draw.sample(calls, len(calls))) == "", one.id
        for place, gold in enumerate(one.golds):
            ((name, accepted),) = gold.items()
            kinds = {key: part["type"] for key, part in one.functions[name]["parameters"]["properties"].items()}
            arguments = dict(calls[place][name])
            for key, value in arguments.items():
                typed = next((type(known) for known in accepted[key] if known != ""), None)
                if kinds[key] == "string" and typed is str:
                    seen["spelled"] += 1
                    arguments[key] = _spoken(value, draw)
                elif kinds[key] == "float" and isinstance(value, float) and value.is_integer():
                    seen["whole"] += 1
                    arguments[key] = int(value)
                elif (
                    len(others := [known for known in accepted[key] if known != "" and known != value])
                    and typed is not dict
                ):
                    seen["other"] += not isinstance(others[0], dict)
                    arguments[key] = others[0] if kinds[key] != "array" else value
            optional = [
                key
                for key in arguments
                if "" in accepted[key] and key not in one.functions[name]["parameters"].get("required", ())
            ]
            if optional:
                seen["shorter"] += 1
                del arguments[draw.choice(optional)]
            seen["plain"] += "." in name
            said = [*calls[:place], {name.replace(".", "_"): arguments}, *calls[place + 1 :]]
            assert mistake(one, said) == "", (one.id, said)
    assert min(seen.values()) > 20, seen
