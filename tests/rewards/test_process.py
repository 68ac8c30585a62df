"""The rule that judges a process: wildcards, values, calls one by one."""

import pytest

from rewards.process import (
    WILDCARD,
    Instruction,
    Level,
    Step,
    agrees,
    all_matched,
    process_correct,
    read_gold,
    read_step,
)


def right(gold: list[Step], made: list[Step], level: Level = "all", told: Instruction = Instruction()) -> bool:
    return process_correct(gold, made, told, level)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"id": ${id from search}}', {"id": WILDCARD}),
        ('{"id": "${id from search}", "n": 1}', {"id": WILDCARD, "n": 1}),
        ('{"from": ${start date}", "to": "{end date}"}', {"from": WILDCARD, "to": WILDCARD}),
        ('{"id": ${id from search, "token": ${token}}', {"id": WILDCARD, "token": WILDCARD}),
        ('{"list": [${some permission}], "password": "Pa$$w0rd"}', {"list": [WILDCARD], "password": "Pa$$w0rd"}),
        ("{broken", None),
    ],
)
def test_placeholders_of_expected_calls_become_wildcards(text, arguments):
    assert read_gold("[Optional] show", text) == Step("show", arguments, optional=True)


@pytest.mark.parametrize(
    ("expected", "given", "same"),
    [
        ("Rome ", "rome", True),
        ("Rome", "Paris", False),
        (1.0, "1", True),
        ("2", 3, False),
        (True, "true", True),
        ("", "anything", True),
        (WILDCARD, 5, True),
        (["a", "b"], ["B", "A"], True),
        (["a", "a"], ["a", "b"], False),
        ([WILDCARD], ["x", "y"], True),
        (["a"], "a", False),
        ("USD,EUR", "eur, usd", True),
        ("USD,EUR", "USD", False),
        ({"a": 1}, {"a": "1", "b": 2}, True),
        ({"a": 1}, {"b": 2}, False),
        ({"a": 1}, [1], False),
    ],
)
def test_values_agree_as_people_would_say(expected, given, same):
    assert agrees(expected, given) is same


def test_each_expected_call_needs_one_of_its_own():
    once, other = read_step("verse", '{"n": 1}'), read_step("verse", '{"n": 2}')
    anything = read_gold("verse", '{"n": ${n}}')
    assert right([once, other], [other, once])
    assert not right([once, other], [once, once])
    assert right([anything, once], [once, other])  # the wildcard makes room for the call that only the other can have
    assert not right([anything, once], [once])


def test_only_helpers_may_be_called_besides():
    gold = [read_gold("search", "{}"), read_gold("[Optional]show", "{}")]
    search = read_step("search", "{}")
    assert right(gold, [search])
    assert right(gold, [read_step("getDetails", "{}"), search, read_step("show", "{}")])
    assert not right(gold, [search, read_step("delete", "{}")])
    assert not right([read_gold("getDetails", '{"Question": "Which?"}'), *gold], [search])


def test_levels_compare_what_is_required_mentioned_or_all():
    gold = [read_gold("search", '{"city": "Rome", "kind": "hotel", "page": 1, "api_key": "k"}')]
    told = Instruction(text="A HOTEL in the city", required={"search": ("city",)}, secrets=("api_key",))
    assert right(gold, [read_step("search", "broken")], "names", told)
    assert not right(gold, [read_step("search", "broken")], "required", told)
    assert right(gold, [read_step("search", '{"city": "rome"}')], "required", told)
    assert not right(gold, [read_step("search", '{"city": "rome"}')], "mentioned", told)
    assert right(gold, [read_step("search", '{"city": "rome", "kind": "Hotel"}')], "mentioned", told)
    assert not right(gold, [read_step("search", '{"city": "rome", "kind": "Hotel"}')], "all", told)
    assert right(gold, [read_step("search", '{"city": "rome", "kind": "Hotel", "page": 1}')], "all", told)
    assert not right(gold, [read_step("search", '{"city": "rome", "kind": "Hotel", "page": 1}')], "all")


def test_matching_is_not_greedy_and_stays_fast():
    assert all_matched([[0, 1], [0]])
    assert not all_matched([[0], [0]])
    assert all_matched([])
    assert not all_matched([list(range(30))] * 31)
