import json

import pytest

from executors.foreign import read_sealtools, read_toolbench
from executors.retrieval import Index, recall, text_of, words
from executors.types import ToolSpec
from tests.executors.effort import effort
from tests.executors.shared_data import shared


def test_names_of_code_fall_into_their_parts_and_plurals_into_singulars():
    assert words("getHTTPStatus_code2") == ["http", "status", "code", "2"]
    assert words("cities and gas-prices of Perú") == ["city", "gas", "price", "per", "ú"]
    assert words("please find the") == []


def test_the_text_with_the_rarer_words_comes_first_and_ties_keep_their_order():
    index = Index(["a red car", "a blue car", "a red bicycle", "a red car"])
    assert [position for position, _ in index.search("red car", 4)] == [0, 3, 1, 2]
    assert [position for position, _ in index.search("bicycle", 4)] == [2]
    assert [position for position, _ in index.search("red car", 1)] == [0]


@pytest.mark.parametrize("query", ["", "the of and", "zebra", "\x00", "\ud800", "   "])
def test_a_query_that_shares_no_word_finds_nothing(query):
    assert Index(["a red car", "a blue car"]).search(query, 3) == []


@pytest.mark.parametrize("texts", [[], [""], ["the"]])
def test_an_index_of_nothing_finds_nothing(texts):
    index = Index(texts)
    assert (len(index), index.search("car", 3)) == (len(texts), [])


def test_more_are_asked_for_than_there_are():
    assert len(Index(["red car", "blue car", "boat"]).search("car", 1000)) == 2
    assert Index(["red car"]).search("car", 0) == []


def test_a_query_without_end_is_read_in_part():
    with effort(seconds=1):
        ((position, score),) = Index(["red car", "boat"]).search("car " * 100_000, 1)
    assert (position, score > 1) == (0, True)


def test_a_tool_is_found_by_its_parameters_too():
    spec = ToolSpec("f", "Does it.", {"properties": {"city": {"description": "Name of a town."}, "any": True}})
    assert text_of(spec) == "f f Does it. city any Name of a town."


def test_recall_counts_every_wanted_name():
    assert recall([["a", "b"], ["c"]], [["b"], ["c", "d"]], 1) == pytest.approx(1 / 3)
    assert recall([["a", "b"], ["c"]], [["b"], ["c", "d"]], 2) == pytest.approx(2 / 3)
    assert recall([], [], 5) == 0


def test_4076_tools_are_indexed_in_under_a_second_and_found():
    tools = read_sealtools(shared("sealtools"))
    with effort(seconds=1):
        index = Index(text_of(tool.spec) for tool in tools)
    assert len(index) == 4076
    rows = [json.loads(line) for line in shared("sealtools", "test_in_domain.jsonl").read_text().splitlines()]
    found = [[tools[position].identity.raw for position, _ in index.search(row["query"], 10)] for row in rows]
    wanted = [list(dict.fromkeys(call["api"] for call in row["calling"])) for row in rows]
    assert recall(found, wanted, 1) > 0.36
    assert recall(found, wanted, 5) > 0.79
    assert recall(found, wanted, 10) > 0.88


def test_the_relevant_apis_of_stabletoolbench_are_found_among_all():
    tools = read_toolbench(shared("stabletoolbench"))
    index = Index(text_of(tool.spec) for tool in tools)
    rows = [row for file in sorted(shared("stabletoolbench").glob("*.json")) for row in json.loads(file.read_text())]
    found = []
    for row in rows:
        positions = [position for position, _ in index.search(row["query"], 10)]
        found.append([f"{tools[p].identity.owner}/{tools[p].identity.raw}" for p in positions])
    wanted = [["/".join(api) for api in row["relevant APIs"]] for row in rows]
    assert recall(found, wanted, 5) > 0.66
    assert recall(found, wanted, 10) > 0.76
