"""Simulated APIs over real HTTP: the same answers as in process, and worlds apart by episode."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from executors.catalog import Catalog
from executors.errors import DataError
from executors.executor import Executor
from executors.http.client import HttpConfig
from executors.listening import ListeningError, listen
from executors.openapi.requests import build_request
from executors.openapi.tools import openapi_tools, read_openapi
from executors.schemas.fabricate import fabricate_arguments
from executors.session import Session
from executors.simulation.received import Received, Router
from executors.simulation.server import read_files, serve, simulated_app
from executors.simulation.simulated import simulated_tools
from executors.types import Scene, ToolCall
from tests.executors.documents import PETS, TEXT, answered, toolalpaca


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve({"pets": PETS}) as listening:
        yield listening.url


def over_http(document: Any, address: str) -> Session:
    """An episode whose tools send real requests."""
    http = HttpConfig(allow_private=(address.split("/")[2],))
    return Executor(Catalog(openapi_tools(document, server=address, http=http)), max_chars=100_000).open(Scene())


def in_process(document: Any) -> Session:
    return Executor(Catalog(simulated_tools(document)), max_chars=100_000).open(Scene())


def test_answers_over_http_equal_those_in_process(url):
    far, near = over_http(PETS, f"{url}/__episodes__/equal/pets"), in_process(PETS)
    calls = [
        ToolCall("listPets", {"color": "wild & blue", "maxPrice": 9.5, "limit": 2}),
        ToolCall("createPet", {"name": "Réx/1", "color": "red", "price": 3, "tags": ["a", "b"]}),
        ToolCall("listPets", {"color": "red"}),
        ToolCall("updatePet", {"petId": 5, "name": "Moe"}),
        ToolCall("getPet", {"petId": 5}),
        ToolCall("deletePet", {"petId": 5}),
        ToolCall("getPet", {"petId": 5}),
        ToolCall("createVisit", {"petId": 6, "date": "2025-01-01"}),
        ToolCall("listVisits", {"petId": 6}),
        ToolCall("getOwner", {"ownerId": "o'Neil ?#1"}),
        ToolCall("createNote", {"text": "Milk"}),
        ToolCall("getRandomPet", {}),
    ]
    for call in calls:
        expected, got = near.run(call), far.run(call)
        assert (got.content, got.status) == (expected.content, expected.status)
    assert {near.run(call).status for call in calls} == {"ok", "tool_error"}


def test_the_toolalpaca_documents_answer_over_http_as_in_process():
    documents = {f"api{at}": text for at, text in enumerate(toolalpaca().values())}
    outcomes = []
    with serve(documents) as listening:
        for name, document in documents.items():
            far, near = over_http(document, f"{listening.url}/{name}"), in_process(document)
            for operation in read_openapi(document).operations:
                call = ToolCall(operation.name, fabricate_arguments(operation.parameters, 1))
                outcomes.append((operation.name, far.run(call).content == near.run(call).content))
    # Two operations at /cat/{...} cannot be told apart over HTTP; the second changes what a later one finds.
    assert {name for name, equal in outcomes if not equal} <= {"findCatByTag", "api"}
    assert len(outcomes) == 94


def test_episodes_have_worlds_of_their_own_until_they_are_ended(url):
    one, other = {"x-episode": "one"}, {"x-episode": "other"}
    with httpx.Client(base_url=url) as client:
        pet = client.post("/pets/pets", json={"name": "Rex"}, headers=one)
        assert pet.status_code == 201
        assert "Rex" in client.get("/pets/pets", headers=one).text
        assert "Rex" not in client.get("/pets/pets", headers=other).text
        assert "Rex" in client.get("/__episodes__/one/pets/pets").text
        assert client.delete("/__episodes__/one").status_code == 204
        assert client.delete("/__episodes__/one").status_code == 404
        assert "Rex" not in client.get("/pets/pets", headers=one).text


def test_a_seed_settles_a_world(url):
    def pets(episode: str, seed: str) -> str:
        return httpx.get(f"{url}/pets/pets", headers={"x-episode": episode, "x-seed": seed}).text

    assert pets("a", "7") == pets("b", "7") != pets("c", "8")
    assert pets("d", "seven") == pets("e", "0")


def test_the_document_and_the_list_of_operations_are_served(url):
    assert httpx.get(f"{url}/pets/openapi.json").json() == PETS
    assert httpx.get(f"{url}/pets").json()["operations"][0] == "listPets"


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/nothing/pets", 404, "there are: pets"),
        ("GET", "/nothing", 404, "there are: pets"),
        ("GET", "/pets/nothing", 404, "nothing at /nothing"),
        ("PATCH", "/pets/pets", 405, "allowed: GET, POST"),
        ("GET", "/pets/pets/five", 400, "petId"),
        ("GET", "/pets/pets?maxPrice=cheap", 400, "maxPrice"),
        ("GET", "/pets/pets?order=up", 400, "must be one of asc, desc"),
    ],
)
def test_requests_that_an_api_would_refuse_are_refused(url, method, path, status, says):
    answer = httpx.request(method, url + path)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "media", "status", "says"),
    [
        (b'{"name": ', "application/json", 400, "cannot be read"),
        (b'{"name": ' + b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b'{"name": ' + b"[" * 800 + b"]" * 800 + b"}", "application/json", 400, "nested too deeply"),
        (b'{"name": "x", "other": ' + b"[" * 800 + b"]" * 800 + b"}", "application/json", 400, "nested too deeply"),
        (b"[1]", "application/json", 400, "must be an object"),
        (b'{"price": NaN}', "application/json", 400, "NaN is no JSON number"),
        (b"{}", "application/json", 400, "Missing required parameter: name"),
        (b"\xff\xfe", "application/json", 400, "cannot be read"),
        (b"name=\xff", "application/x-www-form-urlencoded", 400, "cannot be read"),
        (b"nothing", "multipart/form-data; boundary=x", 400, "no parts"),
        (b"x" * 1_000_001, "application/json", 413, "more than"),
    ],
    ids=range(11),
)
def test_bodies_that_cannot_be_read_are_refused(url, content, media, status, says):
    answer = httpx.post(f"{url}/pets/pets", content=content, headers={"content-type": media})
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


def test_forms_are_read_like_json(url):
    for episode, request in {
        "f1": {"data": {"name": "Rex", "price": "7"}},
        "f2": {"files": {"name": (None, "Rex")}},
    }.items():
        pet = httpx.post(f"{url}/pets/pets", headers={"x-episode": episode}, **request)
        assert pet.status_code == 201, pet.text
        assert pet.json()["name"] == "Rex"


STYLES: list[tuple[str, dict[str, Any], Any]] = [
    ("query", {"schema": {"type": "array", "items": {"type": "integer"}}}, [1, 2]),
    ("query", {"schema": {"type": "array", "items": TEXT}, "explode": False}, ["a b", "c&d"]),
    ("query", {"schema": {"type": "array", "items": TEXT}, "style": "pipeDelimited", "explode": False}, ["a", "b"]),
    ("query", {"schema": {"type": "array", "items": TEXT}, "style": "spaceDelimited", "explode": False}, ["a", "b"]),
    (
        "query",
        {"schema": {"type": "object", "properties": {"x": {"type": "integer"}}}, "style": "deepObject"},
        {"x": 1},
    ),
    ("query", {"schema": {"type": "object", "properties": {"x": {"type": "boolean"}}}}, {"x": True}),
    ("query", {"content": {"application/json": {"schema": {"type": "object"}}}}, {"a": [1, {"b": None}]}),
    ("query", {"schema": {"type": "boolean"}}, False),
    ("query", {"schema": {"type": "string"}}, "5"),
    ("query", {"schema": {"type": ["integer", "null"]}}, 5),
    ("path", {"schema": {"type": "number"}}, 2.5),
    ("path", {"schema": {"type": "array", "items": {"type": "integer"}}}, [1, 2]),
    ("path", {"schema": TEXT, "style": "label"}, "a.b"),
    ("path", {"schema": TEXT, "style": "matrix"}, "a;b"),
    ("path", {"schema": TEXT}, "a b/c"),
    ("header", {"schema": {"type": "integer"}}, 3),
    ("header", {"schema": {"type": "array", "items": TEXT}}, ["a", "b"]),
    ("cookie", {"schema": TEXT}, "a b;c"),
]


@pytest.mark.parametrize(("where", "how", "value"), STYLES, ids=[f"{at}-{style[0]}" for at, style in enumerate(STYLES)])
def test_arguments_arrive_as_they_were_sent(where, how, value):
    parameter = {"name": "Arg-x", "in": where, "required": True} | how
    path = "/things/{Arg-x}" if where == "path" else "/things"
    item = {"get": {"operationId": "f", "parameters": [parameter], "responses": answered(None)}}
    operation = read_openapi({"openapi": "3.0.0", "info": {}, "paths": {path: item}}).operations[0]
    sent_request = build_request(operation, "http://host", {"Arg-x": value})
    path, _, query = sent_request.url.removeprefix("http://host").partition("?")
    headers = {name.lower(): text for name, text in sent_request.headers.items()}
    found = Router([operation]).find(Received("GET", path, query, headers, b""))
    assert isinstance(found, tuple)
    assert found[1] == {"Arg-x": value}


def test_the_plainest_path_wins():
    paths = {
        "/pets/{id}": {"get": {"operationId": "one", "responses": answered(None)}},
        "/pets/best": {"get": {"operationId": "best", "responses": answered(None)}},
    }
    router = Router(read_openapi({"openapi": "3.0.0", "info": {}, "paths": paths}).operations)
    found = router.find(Received("GET", "/pets/best", "", {}, b""))
    assert isinstance(found, tuple)
    assert found[0].name == "best"


def test_a_whole_body_arrives_whole():
    body = {"required": True, "content": {"application/json": {"schema": {"type": "array", "items": TEXT}}}}
    item = {"post": {"operationId": "f", "requestBody": body, "responses": answered(None)}}
    with serve({"api": {"openapi": "3.0.0", "info": {}, "paths": {"/words": item}}}) as listening:
        assert httpx.post(f"{listening.url}/api/words", json=["a"]).status_code == 200
        assert httpx.post(f"{listening.url}/api/words", json={"a": 1}).status_code == 400


def test_a_model_may_play_what_is_served():
    from executors.simulation.played import PlayedApi

    async def model(messages, **options):
        return '{"status": 200, "response": {"id": 1, "name": "Rex"}}' if "getPet" in messages[-1]["content"] else "no"

    played = PlayedApi(read_openapi(PETS), model)
    with serve({"pets": played}) as listening:
        assert httpx.get(f"{listening.url}/pets/pets/1").json()["name"] == "Rex"
        assert httpx.get(f"{listening.url}/pets/pets").status_code == 503


def test_files_of_either_kind_are_read(tmp_path):
    (tmp_path / "My Pets.json").write_text(json.dumps(PETS))
    record = {"Name": "Améthyste", "Documentation": json.dumps(PETS)}
    (tmp_path / "records.json").write_text(json.dumps([record, record, {"Name": "none"}]))
    (tmp_path / "pets.yaml").write_text("openapi: 3.0.0\npaths: {}\n")
    paths = [tmp_path / name for name in ("My Pets.json", "records.json", "pets.yaml")]
    assert list(read_files(paths)) == ["my-pets", "amethyste", "amethyste-2", "pets"]


@pytest.mark.parametrize("content", ["[1, 2]", "[]", "{", "not json"])
def test_a_file_of_neither_kind_is_a_data_error(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError):
        simulated_app(read_files([tmp_path / "x.json"]))


def test_a_taken_port_is_an_error_with_a_reason():
    with serve({"pets": PETS}) as listening:
        port = int(listening.url.rpartition(":")[2])
        with pytest.raises(ListeningError, match="cannot listen"):
            listen(simulated_app({"pets": PETS}), port=port)


def test_the_command_serves_until_it_is_stopped(tmp_path):
    file = tmp_path / "pets.json"
    file.write_text(json.dumps(PETS))
    command = [sys.executable, "-m", "executors.simulation.server", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/pets", line)
            assert httpx.get(f"{line}/pets/3").json()["id"] == 3
        finally:
            server.terminate()


def test_the_command_says_what_is_wrong_with_a_file(tmp_path):
    command = [sys.executable, "-m", "executors.simulation.server", str(tmp_path / "none.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 3
    assert "none.json: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
