import pickle
import random

import pytest

from executors.catalog import MAX_NAME, Catalog, NearNames
from executors.errors import UnknownToolError
from executors.foreign import read_sealtools, unbacked
from executors.tool import tool
from executors.tools.calculator import calculator
from executors.tools.dates import dates
from executors.tools.units import units
from tests.executors.effort import effort
from tests.executors.shared_data import shared


@tool
def greet(name: str) -> str:
    """Say hello."""
    return f"hello {name}"


def test_search_finds_tools_by_what_they_are_for():
    catalog = Catalog([calculator, units, *dates])
    assert catalog.search("convert miles to km")[0][0] == "units"
    assert catalog.search("evaluate arithmetic", k=1)[0][0] == "calculator"
    assert catalog.search("zebra") == []
    assert Catalog([]).search("zebra") == []
    scores = [score for _, score in catalog.search("a date and days")]
    assert scores == sorted(scores, reverse=True)


def test_another_process_gets_the_tools_without_the_index():
    catalog = Catalog([calculator, units])
    catalog.search("miles")
    copy = pickle.loads(pickle.dumps(catalog))
    assert copy.names == catalog.names
    assert copy.search("miles") == catalog.search("miles")
    assert len(pickle.dumps(catalog)) < 500


def test_an_unknown_name_in_an_empty_catalog_is_said_to_be_so():
    with pytest.raises(UnknownToolError, match="no tool named 'x': this catalog is empty"):
        Catalog([]).get("x")


def test_the_message_for_a_name_without_end_is_short():
    with pytest.raises(UnknownToolError) as caught:
        Catalog([calculator]).get("z" * 10**6)
    assert len(str(caught.value)) < MAX_NAME + 100
    assert "closest: calculator" in str(caught.value)


def test_capitals_and_underscores_count_for_nothing_in_a_near_miss():
    near = NearNames(["createTheater", "getBeachWeather", "calculator"])
    assert near.closest("weather")[0] == "getBeachWeather"
    assert near.closest("get_beach_weather")[0] == "getBeachWeather"
    assert near.closest("qqqq") == near.closest("") == []


def test_near_misses_among_thousands_take_milliseconds_and_are_the_ones_that_comparing_all_finds():
    catalog = Catalog(unbacked(read_sealtools(shared("sealtools"))))
    names = list(catalog.names)
    chance = random.Random(0)
    near = NearNames(names)
    missed = []
    with effort(seconds=100 * 0.02):
        for name in chance.sample(names, 100):
            at = chance.randrange(len(name) - 2)
            if near.closest(name[:at] + chance.choice("qxz") + name[at + 2 :], 1) != [name]:
                missed.append(name)
    assert len(missed) <= 3
