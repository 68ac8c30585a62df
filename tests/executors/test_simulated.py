"""A simulated API: what is created is found, what is searched for matches, what is deleted is gone."""

import asyncio
import json
import pickle
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from executors.catalog import Catalog
from executors.errors import DataError
from executors.executor import Executor
from executors.openapi.tools import read_openapi
from executors.schemas.fabricate import fabricate_arguments
from executors.simulation.answers import SimulatedApi
from executors.simulation.resources import field_of, listed, read_roles
from executors.simulation.simulated import Mode, simulated_tools
from executors.simulation.world import World, adapted, same
from executors.types import Observation, Scene, ToolCall
from tests.executors.documents import NUMBER, PETS, TEXT, answered, restbench, sent, toolalpaca


def asking(document: Any = PETS, mode: Mode = "lenient", seed: int = 0) -> Callable[..., Observation]:
    """One episode with a simulated API: a function that calls an operation."""
    executor = Executor(Catalog(simulated_tools(document, mode=mode)), max_chars=100_000, calls_per_episode=None)
    session = executor.open(Scene("episode", seed))
    return lambda operation, /, **arguments: session.run(ToolCall(operation, arguments))


def body(observation: Observation, status: int = 200) -> Any:
    """The JSON of an answer with that status."""
    start = f"Status Code: {status}. Response: "
    assert observation.content.startswith(start), observation.content
    return json.loads(observation.content.removeprefix(start) or "null")


def names(observation: Observation) -> list[str]:
    return [pet["name"] for pet in body(observation)["results"]]


def test_what_is_created_is_found_by_its_id_by_what_it_is_like_and_first_of_all():
    ask = asking()
    pet = body(ask("createPet", name="Rex", color="wild", price=7), 201)
    assert (pet["name"], pet["color"], pet["price"]) == ("Rex", "wild", 7)
    assert body(ask("getPet", petId=pet["id"])) == pet
    assert names(ask("listPets", color="wild"))[0] == "Rex"
    assert names(ask("listPets"))[0] == "Rex"
    assert body(ask("listPets", query="rex"))["results"][0] == pet
    assert "Rex" not in names(ask("listPets", color="black"))


def test_what_is_changed_stays_changed():
    ask = asking()
    before = body(ask("getPet", petId=17))
    changed = body(ask("updatePet", petId=17, name="Moe"))
    assert changed == before | {"name": "Moe"} == body(ask("getPet", petId=17))
    assert changed["id"] == 17


def test_what_is_deleted_is_gone_with_all_that_belongs_to_it():
    ask = asking()
    ask("getPet", petId=17)
    deleted = ask("deletePet", petId=17)
    assert (deleted.status, deleted.content) == ("ok", "Status Code: 204. Response: ")
    for again in (ask("getPet", petId=17), ask("deletePet", petId=17), ask("updatePet", petId=17, name="Moe")):
        assert again.status == "tool_error"
        assert body(again, 404)["error"]["message"] == "No pet with petId 17 was found."
    assert ask("listVisits", petId=17).content.startswith("Status Code: 404.")
    assert ask("createVisit", petId=17, date="2025-01-01").content.startswith("Status Code: 404.")
    assert 17 not in [pet["id"] for pet in body(ask("listPets", limit=20))["results"]]


def test_ids_that_one_operation_shows_lead_to_the_same_things_in_another():
    ask = asking(mode="strict")
    pets = body(ask("listPets"))["results"]
    assert len(pets) == 3
    for pet in pets:
        assert body(ask("getPet", petId=pet["id"])) == pet
        owner = body(ask("getOwner", ownerId=pet["ownerId"]))
        assert owner["ownerId"] == pet["ownerId"]


def test_a_search_finds_what_it_asks_for():
    ask = asking()
    wild = body(ask("listPets", color="wild"))["results"]
    assert [pet["color"] for pet in wild] == ["wild"] * 3
    assert body(ask("getPet", petId=wild[0]["id"])) == wild[0]
    cheap = body(ask("listPets", maxPrice=8.5, minPrice=3))["results"]
    assert cheap and all(3 <= pet["price"] <= 8.5 for pet in cheap)
    young = body(ask("listPets", bornAfter="2024-06-01"))["results"]
    assert young and all(pet["born"] >= "2024-06-01" for pet in young)
    told = body(ask("listPets", query="Harbor"))["results"]
    assert told and all("harbor" in pet["name"].lower() for pet in told)
    both = body(ask("listPets", color="teal", maxPrice=4))["results"]
    assert both and all(pet["color"] == "teal" and pet["price"] <= 4 for pet in both)


def test_a_search_for_what_answers_do_not_show_still_tells_things_apart():
    ask = asking()
    beagles = names(ask("listPets", breed="beagle"))
    assert beagles == names(ask("listPets", breed="Beagle"))
    assert not set(beagles) & set(names(ask("listPets", breed="poodle")))


def test_empty_filters_ask_nothing():
    ask = asking()
    assert names(ask("listPets", color="", query="")) == names(ask("listPets"))


def test_lists_come_in_pages():
    ask = asking()
    pages = [body(ask("listPets", page=page, limit=2)) for page in (1, 2, 3, 4)]
    ids = [[pet["id"] for pet in page["results"]] for page in pages]
    assert [len(page) for page in ids] == [2, 2, 1, 0]
    assert len({one for page in ids for one in page}) == 5
    assert [page["totalResults"] for page in pages] == [5] * 4
    assert [page["page"] for page in pages] == [1, 2, 3, 4]


def test_things_below_others_are_their_own():
    ask = asking()
    visit = body(ask("createVisit", petId=3, date="2025-03-04", reason="Fleas"))
    visits = body(ask("listVisits", petId=3))
    assert visits[0] == visit
    assert visit["petId"] == 3 and all(one["petId"] == 3 for one in visits)
    assert visit["visitId"] not in [one["visitId"] for one in body(ask("listVisits", petId=4))]


def test_a_lenient_world_knows_every_id_and_a_strict_one_only_those_it_showed():
    assert body(asking()("getPet", petId=4711))["id"] == 4711
    ask = asking(mode="strict")
    assert ask("getPet", petId=4711).content.startswith("Status Code: 404.")
    assert ask("listPets", query="no such pet").content.endswith('{"results":[],"page":1,"totalResults":0}')
    pet = body(ask("createPet", name="Rex"), 201)
    assert body(ask("getPet", petId=pet["id"])) == pet


def test_episodes_know_nothing_of_one_another():
    executor = Executor(Catalog(simulated_tools(PETS)))
    one, other = executor.open(Scene("one", 0)), executor.open(Scene("two", 0))
    one.run(ToolCall("createPet", {"name": "Rex"}))
    assert "Rex" in one.run(ToolCall("listPets", {})).content
    assert "Rex" not in other.run(ToolCall("listPets", {})).content


HISTORY = [
    ("listPets", {}),
    ("createPet", {"name": "Rex", "color": "red"}),
    ("listPets", {"color": "red", "limit": 5}),
    ("getRandomPet", {}),
    ("deletePet", {"petId": 5}),
    ("createVisit", {"petId": 9, "date": "2025-01-01"}),
    ("listVisits", {"petId": 9}),
]


def told(seed: int, document: Any = PETS) -> list[str]:
    ask = asking(document, seed=seed)
    return [ask(name, **arguments).content for name, arguments in HISTORY]


def test_answers_follow_from_the_document_the_seed_and_the_history():
    assert told(1) == told(1)
    assert told(1)[0] != told(2)[0]
    renamed = json.loads(json.dumps(PETS).replace('"price"', '"cost"'))
    assert told(1)[0] != told(1, renamed)[0]


def test_something_random_is_another_thing_each_time():
    ask = asking()
    pets = [body(ask("getRandomPet")) for _ in range(5)]
    assert len({pet["id"] for pet in pets}) == 5
    assert body(ask("getPet", petId=pets[2]["id"])) == pets[2]


def test_a_call_that_breaks_the_document_is_refused_as_an_api_would():
    api, world = SimulatedApi(read_openapi(PETS).operations), World(0)
    refused = {
        "Missing required parameter: name": ("createPet", {"color": "red"}),
        "Invalid value for order: must be one of asc, desc": ("listPets", {"order": "up"}),
        "Invalid value for petId: 'five' is not of type 'integer'": ("getPet", {"petId": "five"}),
    }
    for message, (name, arguments) in refused.items():
        answer = api.answer(world, name, arguments)
        assert answer.status == 400
        assert json.loads(answer.text)["error"]["message"] == message


def test_an_operation_without_a_response_schema_answers_with_what_it_was_given():
    answer = body(asking()("createNote", text="Buy milk"))
    assert answer["text"] == "Buy milk"
    assert answer["message"] == "Note created successfully."


def test_operations_named_by_verbs_share_their_things():
    made = {"type": "object", "properties": {"dashboardId": {"type": "integer"}, "dashboardURL": TEXT}}
    shown = {"type": "object", "properties": {"dashboardId": {"type": "integer"}, "dashboardName": TEXT, "owner": TEXT}}
    by_id = [{"name": "dashboardId", "in": "query", "required": True, "schema": {"type": "integer"}}]
    paths = {
        "/createDashboard": {"post": {"requestBody": sent({"dashboardName": TEXT}), "responses": answered(made)}},
        "/getDashboard": {"get": {"parameters": by_id, "responses": answered(shown)}},
        "/renameDashboard": {
            "post": {"requestBody": sent({"dashboardId": NUMBER, "name": TEXT}), "responses": answered(shown)}
        },
        "/deleteDashboard": {"delete": {"parameters": by_id, "responses": answered(None)}},
    }
    for path, item in paths.items():
        next(iter(item.values()))["operationId"] = path.strip("/")
    ask = asking({"openapi": "3.0.0", "info": {"title": "Boards"}, "paths": paths}, "strict")
    key = body(ask("createDashboard", dashboardName="Sales"))["dashboardId"]
    assert body(ask("getDashboard", dashboardId=key))["dashboardName"] == "Sales"
    assert body(ask("renameDashboard", dashboardId=key, name="Costs"))["dashboardName"] == "Costs"
    assert body(ask("getDashboard", dashboardId=key))["dashboardName"] == "Costs"
    assert ask("deleteDashboard", dashboardId=key).ok
    assert not ask("getDashboard", dashboardId=key).ok


def test_things_are_put_into_a_collection_and_taken_out_without_coming_or_going():
    ask = asking(restbench()["spotify"])
    track = body(ask("get-track", id="t1"))
    assert ask("save-tracks-user", ids="t1,t2").ok
    saved = body(ask("get-users-saved-tracks", limit=20))["items"]
    assert {"t1", "t2"} <= {item["track"]["id"] for item in saved}
    assert next(item["track"]["name"] for item in saved if item["track"]["id"] == "t1") == track["name"]
    assert ask("remove-tracks-user", ids="t1").ok
    saved = body(ask("get-users-saved-tracks", limit=20))["items"]
    assert "t1" not in {item["track"]["id"] for item in saved}
    assert body(ask("get-track", id="t1"))["name"] == track["name"]


def test_a_path_of_things_within_things_is_consistent():
    ask = asking(restbench()["tmdb"])
    found = body(ask("GET_search-tv", query="The Night Train"))["results"]
    assert "The Night Train" in found[0]["name"]
    show = body(ask("GET_tv-tv_id", tv_id=found[0]["id"]))
    assert (show["id"], show["name"]) == (found[0]["id"], found[0]["name"])
    season = body(ask("GET_tv-tv_id-season-season_number", tv_id=show["id"], season_number=2))
    assert season["season_number"] == 2
    other = body(ask("GET_tv-tv_id-season-season_number", tv_id=show["id"], season_number=3))
    assert season["overview"] != other["overview"] or season["name"] != other["name"]
    credits = body(ask("GET_tv-tv_id-credits", tv_id=show["id"]))
    star = credits["cast"][0]
    assert body(ask("GET_person-person_id", person_id=star["id"]))["name"] == star["name"]


def test_every_operation_of_the_toolalpaca_and_restbench_documents_answers_with_what_it_documents():
    documents = {**toolalpaca(), **restbench()}
    outcomes: Counter[str] = Counter()
    for document in documents.values():
        api = read_openapi(document)
        simulated = SimulatedApi(api.operations)
        for seed in range(2):
            for operation in api.operations:  # each in a world of its own: another may have deleted its thing
                world = World((api.title, seed))
                arguments = fabricate_arguments(operation.parameters, seed)
                answer = simulated.answer(world, operation.name, arguments)
                assert 200 <= answer.status < 300, (operation.name, arguments, answer.text)
                outcomes["2xx"] += 1
                if operation.response is not None and answer.text:
                    said = answer.text if answer.media.startswith("text/") else json.loads(answer.text)
                    error = next(Draft202012Validator(dict(operation.response)).iter_errors(said), None)
                    assert error is None, (operation.name, arguments, error)
                    outcomes["as documented"] += 1
                assert simulated.answer(World((api.title, seed)), operation.name, arguments) == answer
    assert outcomes["2xx"] == 376
    assert outcomes["as documented"] > 300


def test_the_tools_travel_to_other_processes():
    tools = pickle.loads(pickle.dumps(simulated_tools(PETS)))
    assert len({id(tool.state) for tool in tools}) == 1
    session = Executor(Catalog(tools)).open(Scene("episode", 0))
    assert session.run(ToolCall("listPets", {})).content == asking()("listPets").content


def test_what_is_no_openapi_document_is_a_data_error():
    with pytest.raises(DataError, match="not an OpenAPI 3 document"):
        simulated_tools({"title": "something else"})


def test_what_an_operation_is_about_is_read_from_its_path_its_name_and_its_schemas():
    roles = read_roles(read_openapi(PETS).operations)
    assert {name: (role.action, role.noun) for name, role in roles.items()} == {
        "listPets": ("list", "pet"),
        "createPet": ("create", "pet"),
        "getPet": ("read", "pet"),
        "updatePet": ("update", "pet"),
        "deletePet": ("delete", "pet"),
        "listVisits": ("list", "visit"),
        "createVisit": ("create", "visit"),
        "getOwner": ("read", "owner"),
        "createNote": ("create", "note"),
        "getRandomPet": ("read", "pet"),
    }
    assert roles["listVisits"].parents == (("pet", "petId"),)


def test_fields_of_a_thing_are_the_same_under_either_name():
    assert field_of("pet", "petName") == field_of("pet", "name") == "name"
    assert field_of("pet", "petId") == field_of("pet", "_id") == field_of("pet", "uuid") == "id"
    assert field_of("data source", "sourceId") == "id"
    assert field_of("server member", "serverId") == "serverid"
    assert field_of("pet", "ownerId") == "ownerid"


def test_a_response_is_about_a_list_or_about_one_thing():
    items = {"type": "array", "items": {"type": "object", "properties": {"id": NUMBER}}}
    assert listed(items) == ""
    assert listed({"properties": {"results": items, "page": NUMBER}}) == "results"
    assert listed({"properties": {"roles": items}}) == "roles"
    assert listed({"properties": {"name": TEXT, "roles": items}}) is None
    assert listed({"properties": {"languages": {"type": "array", "items": TEXT}}}) is None
    assert listed(None) is None


def test_values_are_the_same_whatever_their_type_and_fit_where_they_can():
    assert same(5) == same("5") == same(5.0)
    assert same({"a": [1, "B"]}) == same({"a": ["1", "b"]})
    assert adapted("5", {"type": "integer"}) == 5
    assert adapted(5, {"type": "string"}) == "5"
    assert adapted("true", {"type": "boolean"}) is True
    assert adapted("x", {"type": "array", "items": TEXT}) == ["x"]
    assert adapted("Red", {"enum": ["red", "blue"]}) == "red"
    assert adapted("1e999", {"type": "number"}) is not True


def test_an_empty_text_is_no_choice_rather_than_a_wrong_one():
    api = SimulatedApi(read_openapi(PETS).operations)
    answers = [api.answer(World(0), "listPets", arguments) for arguments in ({"order": ""}, {})]
    assert [answer.status for answer in answers] == [200, 200]
    assert [json.loads(answer.text)["totalResults"] for answer in answers] == [5, 5]


async def test_calls_of_one_turn_that_come_together_make_things_of_their_own():
    session = Executor(Catalog(simulated_tools(PETS)), calls_per_turn=None).open(Scene("episode", 0))
    calls = [session.arun(ToolCall("createPet", {"name": f"Rex {at}"})) for at in range(12)]
    pets = [body(observation, 201) for observation in await asyncio.gather(*calls)]
    assert len({pet["id"] for pet in pets}) == 12
    assert {pet["name"] for pet in pets} == {f"Rex {at}" for at in range(12)}


@pytest.mark.parametrize("strict", [False, True])
def test_no_history_however_odd_breaks_the_world(strict):
    odd: list[Any] = [
        None,
        "",
        0,
        -1,
        1e308,
        float("nan"),
        "x" * 3000,
        [],
        {},
        [None],
        {"a": {"b": [1]}},
        "\ud800",
        2**70,
    ]
    operations = read_openapi(PETS).operations
    api, random, statuses = SimulatedApi(operations), Random(0), Counter()
    for seed in range(12):
        world = World(seed, strict=strict)
        for _ in range(40):
            operation = random.choice(operations)
            arguments = fabricate_arguments(operation.parameters, random.randrange(4), optional=random.random())
            for name in [*arguments, "extra", "page"]:
                if random.random() < 0.15:
                    arguments[name] = random.choice(odd)
            answer = api.answer(world, operation.name, arguments)
            statuses[answer.status] += 1
            if answer.status < 300 and answer.text and operation.response:
                assert Draft202012Validator(dict(operation.response)).is_valid(json.loads(answer.text))
    assert set(statuses) <= {200, 201, 204, 400, 404, 409}
    assert statuses[200] > 100 and statuses[400] > 20
