import json

import pytest

from executors.corpus.composition import compose
from executors.corpus.entries import Entry
from executors.openapi.tools import read_openapi
from rollouts.instructions import Rules, cleaned, planned_instructions
from rollouts.plans import PlannedCall, Planner, result_of, settled

MUSIC = Entry(name="Tunes", description="Songs and albums", category="Music")


@pytest.fixture(scope="module")
def planner():
    return Planner(MUSIC.name, read_openapi(compose(MUSIC, 1)).operations)


def test_every_value_that_a_call_needs_is_said_or_found_or_asked_for(planner):
    made = planned_instructions(MUSIC.name, planner, 10)
    assert len(made) == 10
    for one in made:
        assert one.plan is not None
        for call in one.plan.calls:
            for name, value in call.arguments.items():
                said = json.dumps(value).strip('"') if not isinstance(value, bool) else str(value).lower()
                taken = isinstance(value, str) and value.startswith("${")
                left = name in one.plan.left_out and str(value) in one.plan.details
                assert name == "Question" or taken or left or said in one.text


def test_requests_of_an_api_differ_and_name_neither_it_nor_its_functions(planner):
    texts = [one.text for one in planned_instructions(MUSIC.name, planner, 10)]
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if "Tunes" in text or any(name in text for name in planner.operations)]
    assert len({" ".join(text.split()[:2]) for text in texts}) >= 4
    assert texts == [one.text for one in planned_instructions(MUSIC.name, planner, 10)]


def test_stories_tell_an_occasion_first(planner):
    for one in planned_instructions(MUSIC.name, planner, 5, style="story"):
        assert one.text.count(". ") >= 1


def test_plans_vary_in_length_and_some_take_what_was_found(planner):
    plans = [planner.plan(number) for number in range(60)]
    assert {len(plan.calls) for plan in plans} >= {1, 2}
    assert any("${" in str(call.arguments) for plan in plans for call in plan.calls)
    assert any(plan.details for plan in plans)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Show me it.", "fewer than four words"),
        ("Find a song. Then another. And one more.", "3 sentences"),
        ("Ask Tunes for the newest song by Kavya.", "it names Tunes"),
        ("Could you find the song Amber Window by Hugo?", "nearly the same"),
        ("Could you tell me who wrote all those albums?", ""),
    ],
)
def test_rules_say_what_is_wrong_with_a_request(text, fault):
    kept = ["Could you find the song Amber Window by Hugo Ito?"]
    said = Rules().fault(text, kept, ["Tunes"])
    assert fault in said if fault else not said


def test_a_third_request_with_the_same_opening_is_the_last():
    kept = [f"Could you look up {word} please?" for word in ("apples and trees", "some old songs", "my next train")]
    assert "begin with 'could you'" in Rules().fault("Could you tell me a joke about cats?", kept, [])


def test_numbers_and_paired_quotes_are_taken_off_lines():
    assert cleaned('1. "Find a song"\n\n2) ‘And another’\n- "One" and "two"\n  plain ') == [
        "Find a song",
        "And another",
        '"One" and "two"',
        "plain",
    ]


def test_what_an_earlier_call_gave_takes_its_place():
    call = PlannedCall("getSong", {"songId": "${songId from findSongs}", "full": True})
    seen = {"findSongs": 'Status Code: 200. Response: {"total":1,"data":[{"id":77,"title":"Echo"}]}'}
    assert settled(call, seen) == {"songId": 77, "full": True}
    assert result_of("nothing to read") is None
