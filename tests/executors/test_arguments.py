import json
import os
from pathlib import Path

import pytest

from executors.arguments import ArgumentLimits, check_arguments, read_arguments, read_call
from executors.errors import BadCallError
from executors.hostile.arguments import judge_json_args
from executors.types import MalformedCall, ToolCall
from tests.executors.effort import effort

DATA = Path(os.environ.get("APPRENTICE_DATA", "../shared/data"))


def test_a_call_is_an_object_with_a_name_and_arguments():
    assert read_call(' {"arguments": {"a": 1.5, "b": [true, null]}, "name": "add"}\n') == ToolCall(
        "add", {"a": 1.5, "b": [True, None]}
    )
    assert read_call(b'{"name": "say", "arguments": {"text": "\xc3\xa9"}}') == ToolCall("say", {"text": "é"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ('{"name": "add", "arguments": {"a": 1,', "not complete"),
        ('{"name": "ad', "not complete: a string"),
        ("{'name': 'add'}", "Use double quotes"),
        ('[{"name": "add", "arguments": {}}]', "cannot be a list"),
        ('{"name": "add", "arguments": [1]}', "Only one call is made at a time"),
        ('{"name": "add", "arguments": "{}"}', '"arguments" must be a JSON object, not a string'),
        ('{"name": 3, "arguments": {}}', '"name" must be the name of a tool, a string, not an integer'),
        ('{"name": "", "arguments": {}}', '"name" must be'),
        ('{"name": "add"}', 'this one has "name"'),
        ('{"name": "add", "arguments": {}, "user": "root"}', 'no others; this one has "name", "arguments", "user"'),
        ("42", "not an integer"),
        ("null", "not null"),
        ('{"name": "add", "arguments": {}} Done!', 'text after the JSON object: "Done!"'),
        ('{"name": "add", "arguments": {}}{"name": "add", "arguments": {}}', "text after the JSON object"),
        ('```json\n{"name": "add", "arguments": {}}\n```', "not valid JSON"),
        ('\ufeff{"name": "add", "arguments": {}}', "byte order mark"),
        (b'\xef\xbb\xbf{"name": "add", "arguments": {}}', "byte order mark"),
        (b'{"name": "add\xff", "arguments": {}}', "not valid UTF-8: invalid start byte at byte 13"),
        ('{"name": "add", "arguments": {}}\x00', "text after the JSON object"),
        ('{"name": "say", "arguments": {"text": "a\nb"}}', "raw control character"),
        ('{"name": "say", "arguments": {"text": "\\ud800"}}', "half of a surrogate pair"),
        ('{"name": "say", "arguments": {"text": "\ud800"}}', "half of a surrogate pair"),
        ('{"name": "say", "arguments": {"\\udfff": 1}}', "half of a surrogate pair"),
        ('{"name": "add", "arguments": {"a": NaN}}', "NaN is not JSON"),
        ('{"name": "add", "arguments": {"a": -Infinity}}', "-Infinity is not JSON"),
        ('{"name": "add", "arguments": {"a": 1e400}}', "too large for a 64-bit float"),
        ('{"name": "add", "arguments": {"a": 9223372036854775808}}', "too large for 64 bits"),
        ('{"name": "add", "arguments": {"a": ' + "9" * 9000 + "}}", "too large for 64 bits"),
        ('{"name": "add", "arguments": {"a": 1, "a": 2}}', 'The key "a" comes twice'),
        ('{"name": "add", "name": "rm", "arguments": {}}', 'The key "name" comes twice'),
        ('{"name": "add", /* so */ "arguments": {}}', "not valid JSON"),
        ('{"name": "add", "arguments": {"a": 01}}', "not valid JSON"),
        ('{"name": "add", "arguments": {"a": 0x10}}', "not valid JSON"),
        ('{"name": "add", "arguments": {"a": 1,}}', "not valid JSON"),
        ('{"name": "say", "arguments": {"text": "' + "x" * 70_000 + '"}}', "too long: 70,042 characters"),
        ('{"name": "add", "arguments": ' + "[" * 30_000 + "]" * 30_000 + "}", "nested too deeply"),
    ],
)
def test_anything_else_is_malformed_and_says_why(text, says):
    call = read_call(text)
    assert isinstance(call, MalformedCall)
    assert says in call.error
    call.error.encode()
    assert len(call.error) < 300


def test_limits_are_kept_exactly():
    limits = ArgumentLimits(max_chars=40, max_depth=3, max_keys=2)
    assert read_arguments('{"a": [[1]]}', limits) == {"a": [[1]]}
    with pytest.raises(BadCallError, match="3 levels are allowed"):
        read_arguments('{"a": [[[]]]}', limits)
    assert isinstance(read_call('{"name":"f","arguments":{"a":[[1]]}}', ArgumentLimits(max_depth=3)), ToolCall)
    assert isinstance(read_call('{"name":"f","arguments":{"a":[[{}]]}}', ArgumentLimits(max_depth=3)), MalformedCall)
    with pytest.raises(BadCallError, match="too many keys: 2 are allowed"):
        read_arguments('{"a": {"b": 1, "c": 1}}', limits)
    with pytest.raises(BadCallError, match="too long: 41 characters, and 40 are allowed"):
        read_arguments('{"a":"' + "x" * 33 + '"}', limits)


def test_arguments_that_were_never_text_keep_the_same_rules():
    check_arguments({"a": [1, 2.5, None, True, {"b": "é"}]})
    loop: list[object] = []
    loop.append(loop)
    wide: list[object] = [0] * 60_000
    wrong = {
        "nested": loop,
        "too long: 65,536": [wide, wide],
        "not one that JSON has": {1, 2},
        "an integer; keys": {1: 2},
        "nan is not a number": float("nan"),
        "An integer of 65 bits": 1 << 64,
    }
    for says, value in wrong.items():
        with pytest.raises(BadCallError, match=says):
            check_arguments({"a": value})


def test_a_value_that_holds_itself_a_thousandfold_is_refused_in_no_time():
    value: object = "x" * 10
    for _ in range(30):
        value = [value] * 1000
    with effort(seconds=2), pytest.raises(BadCallError, match="too long"):
        check_arguments({"a": value})


def hostile() -> list[dict[str, str]]:
    path = DATA / "hostile_calls.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there: the corpus of hostile calls is read in place")
    return [row for row in map(json.loads, path.read_text().splitlines()) if row["tool"] == "json_args"]


def test_every_hostile_call_ends_as_it_must():
    rows = hostile()
    ends = judge_json_args(rows)
    assert len(rows) >= 30
    assert [row["id"] for row, end in zip(rows, ends, strict=True) if end != row["must"]] == []


def test_calls_near_those_of_the_corpus_end_as_they_must():
    good = ['{"a":-9223372036854775808,"b":9223372036854775807}', '{"b":0,"a":-0}']
    bad = ['{"a":1.0,"b":2}', '{"a":1e2,"b":2}', '{"a":[1],"b":2}', '{"A":1,"b":2}', '{"a":1,"b":2,"__proto__":{}}']
    rows = [{"input": f'{{"name":"add","arguments":{arguments}}}'} for arguments in good + bad]
    assert judge_json_args(rows) == ["ok"] * len(good) + ["error"] * len(bad)
    good = ['{"query":"' + "q" * 10_000 + '"}', '{"query":"","k":100}', '{"query":"\\u0000"}', '{"query":"\\u2028"}']
    bad = ['{"query":"' + "q" * 10_001 + '"}', '{"query":"x","k":0}', '{"query":"x","k":101}', '{"query":["x"]}']
    rows = [{"input": f'{{"name":"search","arguments":{arguments}}}'} for arguments in good + bad]
    assert judge_json_args(rows) == ["ok"] * len(good) + ["error"] * len(bad)
