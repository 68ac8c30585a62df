"""A corpus that models write, asked over real HTTP as the config says; and a run that was stopped in its middle."""

import json
import re
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from executors.corpus.composition import compose
from executors.corpus.entries import Entry
from executors.errors import ConfigError
from rl.config import validate
from rl.data.segments import read_segments
from rl.progress import Progress
from rl.recipes.toolalpaca import train
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolalpaca_corpus import CorpusWriter, UnwrittenError
from rl.run import Run
from rollouts.worker import TooManyFailuresError
from tests.executors.endpoints import completion, endpoint

ENTRIES = [
    {"Name": name, "Description": f"All about {name}", "Category": category}
    for name, category in (("Tunes", "Music"), ("Shelves", "Books"), ("Paws", "Animals"))
]
_REQUESTS = "1. Find me something nice by Smith.\n2. What is there that cost more than 7 last year?\n3. Tunes, please."


def written(body: dict[str, Any]) -> Any:
    """What a capable model would answer to each of the corpus's prompts."""
    task, said = body["messages"][0]["content"], body["messages"][-1]["content"]
    if task.startswith("Introduce a web API"):
        named = re.search(r'The API "(\w+)"', said)
        assert named is not None
        return f"The {named[1]} service is for people who care. It offers: 1) Find things. 2) Get one of them."
    if task.startswith("List the functions"):
        named = re.search(r"The (\w+) service", said)
        assert named is not None
        return f"For {named[1]}:\n1. Name: find\n   Description: Find.\n   Input: {{}}\n   Output: Things."
    if task.startswith("Write the OpenAPI"):
        return document(body["messages"])
    if task.startswith("Write "):
        return _REQUESTS
    if task.startswith("You play a person"):
        return "My name is Smith, and I mean the newest one."
    if task.startswith("You are the server"):
        return json.dumps({"status": 200, "response": {"name": "Played by a model"}, "explanation": "It is there."})
    return attempt(said)


def document(messages: list[dict[str, Any]]) -> Any:
    """At first one that nobody can use; then a half of it, which is cut; then the rest."""
    named = re.search(r"For (\w+):", messages[1]["content"])
    assert named is not None
    whole = json.dumps(compose(Entry(name=named[1], category="Books"), 3))
    if len(messages) == 2:
        return json.dumps({"openapi": "3.0.0", "info": {}, "paths": {}})
    if not messages[-1]["content"].startswith("You were cut off"):
        cut = completion(whole[: len(whole) // 2])
        cut["choices"][0]["finish_reason"] = "length"
        return JSONResponse(cut)
    return whole[len(messages[-2]["content"]) :]


def attempt(text: str) -> str:
    """Ask the user, call the first function, and say what came of it."""
    made = text.rpartition("Begin!")[2].count("ASSISTANT Observation:")
    if made == 0:
        return ' Who are you?\nASSISTANT Action: getDetails\nASSISTANT Action Input: {"Question": "Who?"}'
    if made == 1:
        names = re.search(r"should be one of the following: ([^\n]*)|one of \[([^\]]*)\]", text)
        listed = (names[1] or names[2]) if names else ""
        name = [one.strip() for one in listed.split(",")][1]
        return f" I look.\nASSISTANT Action: {name}\nASSISTANT Action Input: {{}}"
    return " I know it.\nASSISTANT Response: It is there."


def config(folder, url, **writers: Any) -> ToolAlpacaConfig:
    (folder / "apis.json").write_text(json.dumps(ENTRIES))
    named = dict.fromkeys(("apis", "requests", "assistant", "user", "simulation"), "writer")
    content = {
        "recipe": "toolalpaca",
        "name": "asked",
        "policies": {
            "writer": {
                "kind": "endpoint",
                "base_url": url,
                "model": "m",
                "key_env": "WRITER_KEY",
                "mode": "text",
                "retries": 0,
                "prompt_price": 1.0,
                "completion_price": 2.0,
            }
        },
        "corpus": {
            "entries": str(folder / "apis.json"),
            "apis": 2,
            "held_out": 1,
            "instances": 4,
            "test_requests": 1,
            "writers": {**named, **writers},
        },
        "model": {"kind": "tiny", "width": 16, "heads": 2, "layers": 1, "vocab_size": 400, "max_length": 4096},
        "learning": {"steps": 1, "batch_size": 2},
        "max_turns": 2,
        "max_tokens": 8,
    }
    return validate(content, ToolAlpacaConfig, "here")


def begun(folder, *, resume: bool = False) -> Run:
    return Run.start(folder, config_text="", resolved={}, resume=resume)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("WRITER_KEY", "s3cret")


def test_endpoints_write_the_whole_corpus_as_the_config_says_and_it_is_learned(tmp_path):
    with endpoint(written) as fake:
        summary = train(config(tmp_path, fake.url), begun(tmp_path / "run"), Progress())
        assert set(fake.keys) == {"Bearer s3cret"}
    records = json.loads((tmp_path / "run" / "corpus" / "apis.json").read_text())
    assert {one["Introduction"].split(" service")[0] for one in records} == {"The Tunes", "The Shelves", "The Paws"}
    made = [
        json.loads(path.read_text())[0] for path in sorted((tmp_path / "run" / "corpus" / "instances").glob("*.json"))
    ]
    assert [len(one["Instances"]) for one in made] == [2, 2]
    assert made[0]["Instructions"][0] == "Find me something nice by Smith."
    (asked, user), (called, answered) = made[0]["Instances"][0]["intermediate_steps"]
    assert asked[0] == "getDetails" and user == "My name is Smith, and I mean the newest one."
    assert called[0] in made[0]["Function_Projection"] and "Played by a model" in answered
    assert len(read_segments(tmp_path / "run" / "corpus" / "train.json")) == summary["learned"] == 4
    assert summary["model_replies"] == len(fake.asked)
    assert summary["usd"] == pytest.approx(len(fake.asked) * (100 + 40) / 1e6)
    assert "s3cret" not in "".join(path.read_text() for path in (tmp_path / "run" / "corpus").rglob("*.json*"))


def test_a_corpus_that_was_stopped_anywhere_asks_for_no_reply_twice(tmp_path):
    left, good = [0], [0]

    def failing(body):
        left[0] -= 1
        good[0] += left[0] >= 0
        return written(body) if left[0] >= 0 else JSONResponse({"error": {"message": "gone"}}, 503)

    causes: list[str] = []
    with endpoint(failing) as fake:
        asked = config(tmp_path, fake.url, at_once=1)
        for go in range(20):
            left[0] = 5
            writer = CorpusWriter(asked, begun(tmp_path / "run", resume=go > 0))
            try:
                learned_from, _ = writer.records()
                corpus = writer.instances(learned_from)
                break
            except (UnwrittenError, TooManyFailuresError) as error:
                causes.append(str(error))
        else:
            pytest.fail("it never came to an end")
        assert len(causes) >= 3 and all("gone" in cause for cause in causes)
        assert sum(len(one.instances) for one in corpus) == 4
        stopped, good[0], left[0] = good[0], 0, 1000
        whole = CorpusWriter(asked, begun(tmp_path / "other"))
        learned_from, _ = whole.records()
        assert [one.instances for one in whole.instances(learned_from)] == [one.instances for one in corpus]
        assert stopped == good[0]
        assert writer.costs["usd"] == whole.costs["usd"]


def test_an_api_that_a_model_cannot_write_is_left_out_and_the_next_one_taken(tmp_path):
    def stubborn(body):
        return "no" if "Tunes" in body["messages"][1]["content"] else written(body)

    with endpoint(stubborn) as fake:
        writer = CorpusWriter(config(tmp_path, fake.url, tries=2), begun(tmp_path / "run"))
        with pytest.raises(UnwrittenError, match=r"3 APIs are wanted, and of the 3 in the list 2 .* Tunes: no usable"):
            writer.records()
        fewer = writer.config.corpus.model_copy(update={"apis": 1})
        writer = CorpusWriter(writer.config.model_copy(update={"corpus": fewer}), begun(tmp_path / "other"))
        learned_from, held_out = writer.records()
        assert {one["Name"] for one in (*learned_from, *held_out)} == {"Shelves", "Paws"}


def test_a_missing_key_is_told_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("WRITER_KEY")
    with endpoint(written) as fake:
        with pytest.raises(ConfigError, match="export WRITER_KEY"):
            train(config(tmp_path, fake.url), begun(tmp_path / "run"), Progress())
        assert not fake.asked


@pytest.mark.parametrize(
    ("writers", "says"),
    [
        ({"apis": "nobody"}, r"corpus\.writers\.apis: 'nobody' is no endpoint among policies: writer"),
        ({"assistant": None}, "name an assistant"),
    ],
)
def test_writers_that_there_are_not_and_requests_that_nobody_can_follow_are_refused(tmp_path, writers, says):
    with pytest.raises(ConfigError, match=says):
        config(tmp_path, "http://127.0.0.1:1/v1", **writers)
