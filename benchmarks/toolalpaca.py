"""ToolAlpaca's pipeline without a model: how fast APIs and attempts are made, and how well a slow model is overlapped.

``python -m benchmarks.toolalpaca``; the list of APIs is read below ``$APPRENTICE_DATA``.
"""

import asyncio
import json
import multiprocessing
import time
from collections import Counter
from multiprocessing.connection import Connection

from fastapi import FastAPI
from openapi_spec_validator import OpenAPIV30SpecValidator

from executors.corpus.entries import choose_entries, read_entries
from executors.corpus.records import Record, write_corpus
from executors.endpoint import Endpoint, EndpointClient
from executors.listening import listen
from executors.openapi.tools import read_openapi
from executors.simulation.played import PlayedApi, Recording, Verdict
from executors.simulation.simulated import Simulation
from rl.data.segments import refusal
from rl.data.tasks.benchmark import data_folder
from rollouts.instances import generate
from rollouts.instructions import planned_instructions
from rollouts.plans import Planner

APIS = 400
REQUESTS = 10
DELAY = 0.5
AT_ONCE = 32
PLAYED = (320, 1280)
"""Attempts: some seconds of them, where the beginning and the end count, and half a minute."""


class Forgetful(Recording):
    """Asks the model again for what it has answered already."""

    def get(self, key: str) -> Verdict | None:
        """Nothing."""
        return None


def corpus() -> list[Record]:
    """400 APIs from the list, each read by this project and by openapi-spec-validator."""
    entries = read_entries(data_folder("toolalpaca") / "public_apis.json")
    began = time.process_time()
    records = list(write_corpus(choose_entries(entries, APIS, seed=0)))
    spent = time.process_time() - began
    documents = [json.loads(record["Documentation"]) for record in records]
    warnings = sum(len(read_openapi(document).warnings) for document in documents)
    for document in documents:
        OpenAPIV30SpecValidator(document).validate()
    functions = sum(len(record["Function_Projection"]) for record in records)
    categories = len({record["Category"] for record in records})
    print(f"{len(records)} APIs of {categories} categories, {functions} functions: {spent:.1f} CPU-seconds")
    print(f"{len(documents)} documents pass openapi-spec-validator; the reader warns {warnings} times")
    return records


def instances(records: list[Record]) -> None:
    """Ten requests to each API, attempted by the script against the simulation."""
    counted: Counter[str] = Counter()
    calls: Counter[int] = Counter()
    began = time.process_time()
    for record in records:
        name, api = str(record["Name"]), read_openapi(record["Documentation"])
        asked = planned_instructions(name, Planner(name, api.operations), REQUESTS)
        for group in asyncio.run(generate(name, asked, Simulation(api))):
            counted[refusal(group.episodes[0]) or "kept"] += 1
            calls[len(group.episodes[0].calls)] += 1
    spent = time.process_time() - began
    total = sum(counted.values())
    print(f"{total} instances, {dict(counted)}, by calls {dict(sorted(calls.items()))}")
    print(f"{total / spent:.0f} instances per CPU-second, requests and worlds included")


def endpoint(pipe: Connection) -> None:
    """A model that takes its time, in a process of its own, until it is told to stop."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def answer() -> dict[str, object]:
        await asyncio.sleep(DELAY)
        text = json.dumps({"status": 200, "response": {"id": "1", "results": [{"id": "1"}]}, "explanation": "fine"})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}

    with listen(app) as listening:
        pipe.send(listening.url)
        pipe.recv()


def overlap(record: Record, played: int) -> None:
    """Attempts at one API that a model plays over HTTP, 500 ms for each answer, against all of them overlapped."""
    name = str(record["Name"])
    document = json.loads(record["Documentation"])
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"] = {"200": {"description": "Fine."}}
    api = read_openapi(document)
    planner = Planner(name, api.operations)
    requests = [one for one in planned_instructions(name, planner, REQUESTS) if one.plan and len(one.plan.calls) == 1]
    requests = (requests * played)[:played]
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=endpoint, args=(theirs,))
    server.start()
    model = EndpointClient(Endpoint(base_url=f"{ours.recv()}/v1", model="m"))
    asyncio.run(generate(name, requests[:1], PlayedApi(api, model), at_once=AT_ONCE))  # connections, imports
    before = model.spent.requests
    began, cpu = time.perf_counter(), time.process_time()
    groups = asyncio.run(generate(name, requests, PlayedApi(api, model, recording=Forgetful()), at_once=AT_ONCE))
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    asked = model.spent.requests - before
    ours.send("done")
    server.join()
    ended = Counter(group.episodes[0].stop for group in groups)
    ideal = asked * DELAY / AT_ONCE
    print(f"{len(groups)} attempts, {asked} answers of {DELAY} s, {AT_ONCE} at once: {took:.1f} s, ideal {ideal:.1f} s")
    print(f"overlap {ideal / took:.2f} of ideal; {spent:.1f} CPU-seconds; {dict(ended)}")


def main() -> None:
    """All three."""
    records = corpus()
    instances(records)
    for played in PLAYED:
        overlap(records[0], played)


if __name__ == "__main__":
    main()
