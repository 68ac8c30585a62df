"""STE's APIs here: those that are really executed, and those that are answered from their schemas."""

import json
import pickle
from datetime import date

import pytest

from executors.catalog import Catalog
from executors.errors import ConfigError, ToolError
from executors.executor import Executor
from executors.tools.numerals import amount_in_english, amount_in_spanish, fact_of, in_english, in_spanish, math_fact
from executors.tools.numerals import number_in_words as words
from executors.tools.passwords import password_of
from executors.tools.places import coordinates, known_places, time_zone
from executors.tools.reckoning import add_days, reckon
from executors.tools.ste import local_apis, simulated_specs, ste_tools
from executors.tools.tables import car_makes, character, characters, languages
from executors.types import Observation, Scene, ToolCall, ToolSpec
from tests.executors.shared_data import shared


def played(executor: Executor, scene: Scene, *calls: ToolCall) -> list[Observation]:
    session = executor.open(scene)
    try:
        return [session.run(call) for call in calls]
    finally:
        session.close()


def test_at_least_twelve_of_the_fifty_are_executed_and_every_gold_call_of_theirs_gets_an_answer():
    names = json.loads(shared("ste", "API_list.json").read_text())
    local = [name for name in names if name in local_apis()]
    assert len(local) >= 12 and set(local) == set(local_apis())
    tools = ste_tools(shared("ste"), local)
    executor = Executor(pickle.loads(pickle.dumps(Catalog(tools))))
    rows = json.loads(shared("ste", "tool_test.json").read_text())
    answered = {}
    for name, tool in zip(local, tools, strict=True):
        calls = [ToolCall(tool.name, json.loads(row["action_input"])) for row in rows[name]]
        seen = played(executor, Scene("gold", 1), *calls)
        assert {one.status for one in seen} <= {"ok", "tool_error", "bad_call"}
        answered[name] = sum(one.ok for one in seen)
    assert all(answered.values())
    assert sum(answered.values()) > 0.9 * 15 * len(local)


def test_the_other_apis_are_answered_from_their_schemas_and_hold_calls_to_them():
    names = json.loads(shared("ste", "API_list.json").read_text())
    tools = ste_tools(shared("ste"), names)
    assert len(tools) == 50
    assert len(ste_tools(shared("ste"), names, simulate=False)) == len(local_apis())
    lookup = {name: tool.name for name, tool in zip(names, tools, strict=True)}
    executor = Executor(Catalog(tools))
    scene = Scene("one", 3)
    weather = ToolCall(lookup["forecast_weather"], {"location": "Oslo", "days": 2})
    asked = [weather, weather, ToolCall(lookup["forecast_weather"], {"location": "Oslo"})]
    first, again, bad = played(executor, scene, *asked)
    assert first.ok and first.content == again.content
    assert bad.status == "bad_call" and "days" in bad.content
    with pytest.raises(ConfigError, match="describes no API 'nothing'"):
        ste_tools(shared("ste"), ["nothing"])


def test_described_tools_answer_by_what_they_say_they_return():
    returns = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}
    parameters = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
    (tool,) = simulated_specs([ToolSpec("price_of", "The price of an item.", parameters, returns)])
    (seen,) = played(Executor(Catalog([tool])), Scene("x", 1), ToolCall("price_of", {"item": "tea"}))
    assert seen.ok and isinstance(json.loads(seen.content.partition("Response: ")[2])["price"], int | float)
    assert simulated_specs([]) == []


@pytest.mark.parametrize(
    ("value", "english", "spanish"),
    [
        (0, "zero", "cero"),
        (21, "twenty-one", "veintiún"),
        (100, "one hundred", "cien"),
        (131, "one hundred thirty-one", "ciento treinta y un"),
        (1001, "one thousand one", "mil un"),
        (555_016, "five hundred fifty-five thousand sixteen", "quinientos cincuenta y cinco mil dieciséis"),
        (2_000_000, "two million", "dos millones"),
        (10**9, "one billion", "mil millones"),
        (-7, "minus seven", "menos siete"),
    ],
)
def test_whole_numbers_are_written_out(value, english, spanish):
    assert (in_english(value), in_spanish(value)) == (english, spanish)


def test_numbers_and_amounts_are_read_as_people_write_them():
    assert words("1,234.50") == "One thousand two hundred thirty-four point five zero"
    assert words("-0.5") == "Minus zero point five"
    assert words("9" * 42).startswith("Nine hundred ninety-nine duodecillion")
    assert amount_in_spanish("PESOS", "1,000,000") == "UN MILLÓN DE PESOS 00/100 M.N."
    assert amount_in_spanish("DOLARES", "1.005") == "UN DÓLAR 01/100 USD"
    assert amount_in_english("EUROS", "2.5") == "TWO EUROS 50/100 EUR"
    for wrong in ("twelve", "1,23", "9" * 43, ""):
        with pytest.raises(ToolError):
            words(wrong)
    with pytest.raises(ToolError, match="one of PESOS"):
        amount_in_spanish("pesos", "1")
    with pytest.raises(ToolError, match="not negative"):
        amount_in_english("PESOS", "-1")


def test_facts_about_numbers_are_true():
    assert fact_of(49) == "the square of 7"
    assert fact_of(28) == "the 7th triangular number"
    assert fact_of(512) == "2 to the power of 9"
    assert fact_of(97) == "a prime number"
    assert fact_of(60) == "a number with the prime factors 2 and 3 and 5"
    assert fact_of(-3) == "a number whose digits add up to 3"
    assert math_fact("16", "false", "false") == "16 is the square of 4."
    assert math_fact("16")["text"] == "the square of 4"
    with pytest.raises(ToolError, match="no whole number"):
        math_fact("1.5")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("square root of 16", "4"),
        ("What is 15% of 80?", "12"),
        ("5!", "120"),
        ("2 to the power of 10", "1024"),
        ("3 plus 4 times 2", "11"),
        ("convert 5 km to m", "5000 m"),
        ("Chemical symbol for oxygen", "O"),
        ("atomic number of aluminum", "13"),
    ],
)
def test_what_can_be_computed_is(asked, answer):
    assert reckon(asked) == answer


def test_what_has_to_be_looked_up_is_refused():
    for asked in ("capital of France", "__import__('os')", "", "9**9**9", "1 / 0"):
        with pytest.raises(ToolError):
            reckon(asked)


def test_dates_go_both_ways_and_end_with_the_calendar():
    assert add_days("2022-01-01", -20) == "2021-12-12"
    with pytest.raises(ToolError):
        add_days("9999-12-31", 1)


def test_time_zones_follow_the_point_and_the_moment():
    summer = time_zone(date(2024, 7, 1), 40.7, -74.0)
    winter = time_zone(date(2024, 1, 1), 40.7, -74.0)
    assert summer["tz_id"] == winter["tz_id"] == "America/New_York"
    assert (summer["base_utc_offset"], summer["dst_offset"], winter["dst_offset"]) == (-18000, 3600, 0)
    assert time_zone(date(2024, 7, 1), -33.87, 151.21, timestamp=0)["local_time"] == "1970-01-01T10:00:00+10:00"
    with pytest.raises(ToolError, match="no point"):
        time_zone(date(2024, 7, 1), 95, 0)


def test_places_are_found_by_the_nearest_name():
    assert len(known_places()) > 300
    sydney = coordinates("sydny", "en", "AU")
    assert (sydney["name"], sydney["partial_match"]) == ("Sydney", True)
    assert abs(sydney["lat"] + 33.87) < 0.1 and abs(sydney["lon"] - 151.2) < 0.1
    for name, lang, country in (("Paris", "fr", ""), ("Paris", "en", "QQ"), ("xyzzy", "en", "")):
        with pytest.raises(ToolError):
            coordinates(name, lang, country)


def test_tables_are_whole():
    assert len(characters()) == 55 and len({one["name"] for one in characters()}) == 55
    assert character("captain commando")["universe"] == "Capcom"
    assert character("Morrigan Aensland")["name"] == "Morrigan"
    with pytest.raises(ToolError, match="could be"):
        character("captain")
    assert "Tesla" in car_makes() and {"code": "de", "name": "German"} in languages()
    assert all(len(language["code"]) == 2 for language in languages())


def test_an_episode_draws_its_own_passwords_and_the_same_when_played_again():
    names = ["Password Generator API%%Base", "Password Generator API%%Password of length 50", "Token API%%generate"]
    tools = ste_tools(shared("ste"), names)
    calls = [ToolCall(tools[0].name, {}), ToolCall(tools[1].name, {"length": "20"}), ToolCall(tools[2].name, {})]
    executor = Executor(Catalog(tools))
    first, again, other = (played(executor, scene, *calls) for scene in (Scene("a", 1), Scene("a", 1), Scene("b", 1)))
    assert [one.content for one in first] == [one.content for one in again] != [one.content for one in other]
    assert [len(one.content) for one in first[:2]] == [16, 20]
    refused = played(executor, Scene("a", 1), ToolCall(tools[1].name, {"length": "three"}))
    assert refused[0].status == "tool_error"


def test_passwords_have_all_kinds_of_signs():
    import random

    for seed in range(20):
        drawn = password_of(random.Random(seed), 4)
        assert len(drawn) == 4 and any(map(str.isdigit, drawn)) and any(map(str.isupper, drawn))
