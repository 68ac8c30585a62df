import json
import time
from collections import Counter

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from executors.corpus.composition import compose
from executors.corpus.documentation import describe
from executors.corpus.entries import Entry, choose_entries, read_entries
from executors.corpus.kinds import all_kinds, kinds_of
from executors.corpus.records import read_records, write_corpus, write_embedded
from executors.errors import DataError
from executors.openapi.documents import load_document
from executors.openapi.tools import read_openapi
from tests.executors.shared_data import shared

AXOLOTLS = Entry(name="Axolotl", description="Collection of axolotl pictures and facts", category="Animals")


@pytest.fixture(scope="module")
def records():
    entries = read_entries(shared("toolalpaca", "public_apis.json"))
    began = time.process_time()
    made = list(write_corpus(choose_entries(entries, 400, seed=0)))
    assert time.process_time() - began < 30
    return made


def test_four_hundred_apis_are_read_without_a_warning_and_no_two_are_the_same(records):
    apis = [read_openapi(json.loads(record["Documentation"])) for record in records]
    assert len(apis) == 400
    assert not [api.warnings for api in apis if api.warnings]
    assert len({record["Name"] for record in records}) == 400
    assert len({tuple(sorted((one.name, one.path) for one in api.operations)) for api in apis}) > 380
    assert all(3 <= len(api.operations) <= 8 for api in apis)


def test_the_chosen_apis_cover_every_category_evenly(records):
    entries = read_entries(shared("toolalpaca", "public_apis.json"))
    counted = Counter(record["Category"] for record in records)
    assert set(counted) == {entry.category for entry in entries}
    assert max(counted.values()) <= 10


def test_documents_pass_the_official_validator(records):
    for record in records[::10]:
        OpenAPIV30SpecValidator(json.loads(record["Documentation"])).validate()


def test_a_seed_settles_a_document_and_another_gives_another():
    assert compose(AXOLOTLS, 1) == compose(AXOLOTLS, 1)
    assert compose(AXOLOTLS, 1) != compose(AXOLOTLS, 2)


def test_what_an_entry_says_settles_what_its_api_is_about():
    told = Entry(name="Tunes", description="Playlist and album data", category="Animals")
    names = " ".join(one.name for seed in range(5) for one in read_openapi(compose(told, seed)).operations)
    assert "laylist" in names or "lbum" in names


def test_every_category_of_the_list_has_things_of_its_own():
    for entry in read_entries(shared("toolalpaca", "public_apis.json")):
        kinds = kinds_of(entry.category)
        assert entry.category == "Open Data" or kinds != kinds_of("Open Data")
        assert sum(not kind.is_service for kind in kinds) >= 1
    assert len({kind.noun for kind in all_kinds()}) > 120


def test_function_texts_and_projections_of_the_published_apis_come_out_to_the_letter():
    for file in ("eval_simulated.json", "eval_real.json"):
        for record in json.loads(shared("toolalpaca", file).read_text()):
            told = describe(load_document(record["Documentation"]))
            assert dict(told.functions) == record["Function_Description"]
            assert told.text.strip() == record["NLDocumentation"].strip()
            assert {name: list(place) for name, place in told.projection.items()} == record["Function_Projection"]


def test_a_record_has_the_keys_of_the_published_ones_and_its_functions_are_those_of_its_document():
    record = write_embedded(AXOLOTLS, 3)
    names = [one.name for one in read_openapi(json.loads(record["Documentation"])).operations]
    assert list(record["Function_Projection"]) == names
    assert [*record["Function_Description"]] == [*names, "components"]
    for number, name in enumerate(names, start=1):
        assert f"{number}. Name: {name}\n" in record["Functions"]
        assert f"{name}: " in record["NLDocumentation"]


def test_a_list_that_is_none_is_refused_with_its_place(tmp_path):
    path = tmp_path / "apis.json"
    path.write_text(json.dumps([{"API": "Cats", "Category": "Animals"}, {"Category": "Animals"}]))
    with pytest.raises(DataError, match="entry 2: it has no Name"):
        read_entries(path)
    path.write_text(json.dumps({"entries": []}))
    with pytest.raises(DataError, match="holds no list of APIs"):
        read_entries(path)
    with pytest.raises(DataError, match="different names"):
        choose_entries([AXOLOTLS], 2, seed=0)


def test_records_are_read_again_and_others_are_refused(tmp_path):
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps([write_embedded(AXOLOTLS)]))
    assert read_records(path) == [write_embedded(AXOLOTLS)]
    path.write_text(json.dumps([{"Name": "Axolotl"}]))
    with pytest.raises(DataError, match="record 1 has no Name or no Documentation"):
        read_records(path)
