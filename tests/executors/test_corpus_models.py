import json

import pytest
from fastapi.responses import JSONResponse

from executors.corpus.composition import compose
from executors.corpus.entries import Entry
from executors.corpus.modelled import ModelWriter, Writing, usable_document
from executors.endpoint import Endpoint, EndpointClient
from executors.errors import DataError, TransientError
from executors.openapi.tools import read_openapi
from tests.executors.endpoints import completion, endpoint, texts

CATS = Entry(name="Cat Facts", description="Daily cat facts", category="Animals", link="https://cats.example.com")
INTRODUCTION = "The Cat Facts API tells a fact about cats on every day."
FUNCTIONS = "1. Name: getFact\n   Description: Get a fact.\n   Input: {}\n   Output: A fact."
DOCUMENT = json.dumps(compose(CATS))


def cut(text):
    """A reply that was cut at its length limit."""
    made = completion(text)
    made["choices"][0]["finish_reason"] = "length"
    return JSONResponse(made)


def writer(fake, **writing):
    return ModelWriter(EndpointClient(Endpoint(base_url=fake.url, model="m", retries=0)), Writing(**writing))


async def test_three_questions_make_a_record():
    with endpoint(INTRODUCTION, FUNCTIONS, f"Here it is:\n```json\n{DOCUMENT}\n```") as fake:
        record = await writer(fake).write(CATS)
    assert len(fake.asked) == 3
    assert record["Introduction"] == INTRODUCTION
    assert record["Functions"] == FUNCTIONS
    assert INTRODUCTION in texts(fake.asked[1]["messages"])
    assert list(record["Function_Projection"]) == [one.name for one in read_openapi(json.loads(DOCUMENT)).operations]


async def test_a_document_that_is_cut_is_continued_where_it_stopped():
    third = len(DOCUMENT) // 3
    pieces = [cut(DOCUMENT[:third]), cut(DOCUMENT[third : 2 * third]), DOCUMENT[2 * third :]]
    with endpoint(INTRODUCTION, FUNCTIONS, *pieces) as fake:
        record = await writer(fake).write(CATS)
    assert json.loads(record["Documentation"])["paths"] == json.loads(DOCUMENT)["paths"]
    assert fake.asked[4]["messages"][-2] == {"role": "assistant", "content": DOCUMENT[: 2 * third]}


async def test_a_fault_is_told_and_the_next_attempt_counts():
    unnamed = json.loads(DOCUMENT)
    next(iter(next(iter(unnamed["paths"].values())).values())).pop("operationId")
    with endpoint(INTRODUCTION, FUNCTIONS, "{no json", json.dumps(unnamed), DOCUMENT) as fake:
        record = await writer(fake).write(CATS)
    assert "cannot be used: the reply holds no JSON object" in texts(fake.asked[3]["messages"])
    assert "has no operationId" in texts(fake.asked[4]["messages"])
    assert json.loads(record["Documentation"])["info"]["title"] == "Cat Facts"


async def test_a_copied_example_is_not_taken():
    with endpoint("The Harbour Almanac gives skippers the tides.", INTRODUCTION, FUNCTIONS, DOCUMENT) as fake:
        record = await writer(fake).write(CATS)
    assert record["Introduction"] == INTRODUCTION


async def test_a_model_that_never_writes_one_is_given_up_with_the_reason():
    with (
        endpoint(INTRODUCTION, FUNCTIONS, '{"openapi": "3.0.0", "paths": {}}') as fake,
        pytest.raises(TransientError, match=r"no usable document in 2 attempts: .*names no operation"),
    ):
        await writer(fake, attempts=2).write(CATS)
    assert len(fake.asked) == 4


async def test_one_api_that_fails_leaves_the_others_alone():
    dogs = Entry(name="Dogs", description="Dog facts", category="Animals")

    def answer(body):
        said = texts(body["messages"])
        if "Introduce a web API" in said:
            return "Too short." if '"Dogs"' in said else INTRODUCTION
        return DOCUMENT if "Write the OpenAPI" in said else FUNCTIONS

    kept = []
    with endpoint(answer) as fake:
        records, failed = await writer(fake, attempts=2).write_all([dogs, CATS], kept.append)
    assert [record["Name"] for record in records] == ["Cat Facts"]
    assert kept == records
    assert [(one.name, "fewer than five words" in one.reason) for one in failed] == [("Dogs", True)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.update(responses={"404": {"description": "gone"}}), "has no successful response"),
        (lambda one: one.update(operationId=None), "has no operationId"),
    ],
)
def test_a_document_with_holes_is_refused(change, said):
    document = json.loads(DOCUMENT)
    change(next(iter(next(iter(document["paths"].values())).values())))
    with pytest.raises(DataError, match=said):
        usable_document(json.dumps(document), CATS)


def test_a_server_and_a_title_are_added_where_there_are_none():
    document = {key: value for key, value in json.loads(DOCUMENT).items() if key not in ("servers", "info")}
    made = usable_document(json.dumps(document), CATS)
    assert made["servers"] == [{"url": "https://cats.example.com"}]
    assert made["info"] == {"title": "Cat Facts", "version": "1.0.0"}
