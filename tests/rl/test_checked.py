"""What ``apprentice check`` tells of recipes that are given no tasks, before any model is there."""

import json

import pytest

from executors.errors import DataError
from executors.tool import Limits, tool
from rl.recipes.checked import stage_checks
from rl.recipes.ste_config import SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig

CHANGED: list[str] = []


@tool(limits=Limits(idempotent=False))
def rename(name: str) -> str:
    """Renames the only file that there is."""
    CHANGED.append(name)
    return name


def test_of_ste_the_tools_a_query_and_what_they_say_to_calls_are_told_and_nothing_is_changed():
    config = SteConfig.model_validate(
        {
            "name": "x",
            "tools": ["calculator", "dates", f"{__name__}:rename"],
            "known": {"tools": ["calculator"]},
        }
    )
    told = list(stage_checks(config))
    assert told[0].startswith("tools      6 to explore: today, ") and told[0].endswith("1 known: calculator")
    assert "prompt     a query to today; what is between « and » is learned" in told
    assert "           «Action: today" in told
    assert "tool       weekday: an invented call ok; no arguments bad_call; a list for each bad_call; " in "\n".join(
        told
    )
    assert [line for line in told if "rename:" in line and "invented" not in line]
    assert CHANGED == []


def entries(folder, count):
    path = folder / "apis.json"
    rows = [{"Name": f"Songs {n}", "Description": "All about songs", "Category": "Music"} for n in range(count)]
    path.write_text(json.dumps(rows))
    return str(path)


def test_of_toolalpaca_an_api_and_an_attempt_are_told_with_what_is_learned_of_it(tmp_path):
    corpus = {"entries": entries(tmp_path, 5), "apis": 3, "held_out": 2, "instances": 9, "distractors": 1}
    told = list(stage_checks(ToolAlpacaConfig.model_validate({"name": "x", "corpus": corpus})))
    assert told[0] == "entries    5; 3 are learned from and 2 held out"
    assert told[1].startswith("API        Songs ")
    assert "attempts   3 of 3 at its requests pass the filter" in told
    text = "\n".join(told)
    assert "ASSISTANT Thought: «" in text and "ASSISTANT Response: " in text and text.endswith("»")
    assert text.count("«") == text.count("»")


def test_a_list_of_too_few_apis_is_an_error_of_check_too(tmp_path):
    corpus = {"entries": entries(tmp_path, 2), "apis": 3, "held_out": 2, "instances": 9}
    with pytest.raises(DataError, match="5 APIs were asked for, and the list has 2"):
        list(stage_checks(ToolAlpacaConfig.model_validate({"name": "x", "corpus": corpus})))
