"""ToolGen with a catalog of one's own: Python functions and an OpenAPI document, requests, and a run's attempts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from executors.errors import ConfigError, DataError
from executors.tool import tool
from rl.config import named_places, read_yaml, validate
from rl.data.rounds import GROUPS, RoundGroup
from rl.data.tasks.own_catalog import OwnCatalog
from rl.data.toolgen import spoken
from rl.data.written_requests import written_requests
from rl.planning.knobs import idle_knobs
from rl.planning.outlines import outline
from rl.progress import Progress
from rl.recipes.checked import stage_checks
from rl.recipes.served import open_run
from rl.recipes.toolgen import evaluate_run, train
from rl.recipes.toolgen_config import ToolGenConfig
from rl.recipes.toolgen_stages import conversations, foreign_tokens, without_held_out
from rl.run import Run
from rollouts.store import Log
from tests.rl.recorded_groups import record, task

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


@tool(name="Finish")
def finish() -> str:
    """Ends something."""
    return ""


def config(**more) -> ToolGenConfig:
    return validate(read_yaml(Path("examples/toolgen/config.yaml")) | more, ToolGenConfig, "config.yaml")


def requests(folder: Path, *rows) -> OwnCatalog:
    path = folder / "requests.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return OwnCatalog(tools=["calculator", "text"], requests=str(path))


def test_rows_that_are_no_requests_are_told_with_what_to_mend(tmp_path):
    given = requests(
        tmp_path,
        {"prompt": "Add 1 and 2", "wanted": ["calculater"]},
        {"prompt": "Add 1 and 2"},
        {"wanted": ["calculator"]},
        {"prompt": "x", "wanted": "calculator"},
    )
    with pytest.raises(DataError) as told:
        given.load()
    message = str(told.value)
    assert "4 rows" in message and "row 1: no tool named 'calculater'" in message and "calculator" in message
    assert "row 2: it says neither by 'wanted' nor by 'call'" in message and "row 3: no prompt" in message
    with pytest.raises(DataError, match="row 1"):
        requests(tmp_path, "{").load()
    with pytest.raises(DataError, match="none falls into the"):
        requests(tmp_path, {"prompt": "Add 1 and 2", "call": {"tool": "calculator", "arguments": {}}}).load()


def test_check_tells_what_would_be_learned_and_tries_the_tools(tmp_path):
    told = list(stage_checks(config()))
    assert told[0] == "requests   173 train, 29 validation, 60 test; 0 left out"
    assert told[1].startswith("tools      17: calculator, today") and told[1].endswith(" ...")
    assert "stage      memorisation: 120 steps on 17 conversations; what is between « and » is learned" in told
    assert "           «Action:<<calculator>>»" in told
    assert "stage      agent is left out: it has 0 steps" in told
    assert "tool       today: an invented call ok; an unknown one bad_call" in told
    assert not [line for line in told if line.startswith("warning")]
    rows = [{"prompt": f"Add {n} and {n}", "wanted": ["calculator"]} for n in range(40)]
    few = requests(tmp_path, *rows).model_copy(update={"tools": ["calculator", "text"]})
    (warned, idle) = [
        line for line in stage_checks(config(agent={"steps": 5}, data=few.model_dump())) if line.startswith("warning")
    ]
    assert warned.startswith("warning    no training request wants") and "retrieval.written" in warned
    assert idle == "warning    agent is left out: there is nothing to learn"


def test_check_finds_a_request_for_a_tool_that_there_is_not(tmp_path):
    few = requests(tmp_path, {"prompt": "Add 1 and 2", "wanted": ["calculater"]})
    with pytest.raises(DataError, match=r"row 1: no tool named 'calculater'.*calculator"):
        list(stage_checks(config(data=few.model_dump())))


def test_names_that_the_grammar_has_for_itself_are_refused(tmp_path):
    given = requests(tmp_path, {"prompt": "Add 1 and 2", "wanted": ["calculator"]})
    for reference in (f"{__name__}:finish", "describe"):
        with pytest.raises(ConfigError, match="ToolGen has for itself"):
            given.model_copy(update={"tools": ["calculator", reference]}).load()


def test_python_functions_and_an_openapi_document_are_one_corpus_whose_tools_are_really_run():
    data = config().data.load()
    assert {"calculator", "to_fahrenheit", "get_book"} <= set(data.tools)
    assert data.catalog is not None and data.catalog.names == tuple(data.tools)
    splits = [{query.text for query in split} for split in (data.train, data.validation, data.test)]
    assert all(splits) and sum(map(len, splits)) == len(set.union(*splits)) == len(data.queries)
    again = config(data=config().data.model_dump() | {"test_share": 0.5}).data.load()
    assert splits[2] < {query.text for query in again.test}


def test_a_run_with_own_tools_is_trained_evaluated_and_opened_with_what_runs_them(tmp_path):
    small = {"memorisation": {"steps": 2, "batch_size": 4}, "retrieval": {"steps": 2, "batch_size": 4}}
    made = config(**small, model={"kind": "tiny", "width": 16, "heads": 2, "vocab_size": 400, "max_length": 160})
    run = Run.start(tmp_path / "run", config_text="", resolved=made.model_dump(mode="json"), resume=False)
    summary = train(made, run, Progress())
    assert summary["tools"] == 17 and summary["bm25"]["ndcg@5"]["value"] > 0.5
    assert summary["start"]["hallucinated_constrained"]["value"] == 0
    opened = open_run(run.path)
    catalog = opened.catalog
    assert catalog.get("to_fahrenheit").function(celsius=100) == "212.0"
    checkpoint = run.path / "checkpoints" / "retrieval" / "step-2"
    assert evaluate_run(run, made, checkpoint, "validation").keys() >= {"ndcg@5", "hallucinated"}
    run.path.rename(tmp_path / "moved")
    moved = Run(tmp_path / "moved")
    assert (moved.path / "checkpoints" / "best" / "model.safetensors").is_file()
    assert train(made, moved, Progress())["start"] == summary["start"]


def test_feedback_where_no_tool_is_wrong_has_nothing_to_rank_and_leaves_the_policy_as_it_is(tmp_path):
    rows = [{"prompt": f"Add {n} and {n + 7}", "wanted": ["calculator"]} for n in range(30)]
    data = requests(tmp_path, *rows).model_copy(update={"tools": ["calculator"]})
    small = {"memorisation": {"steps": 1, "batch_size": 2}, "retrieval": {"steps": 0}, "feedback": {"steps": 1}}
    made = config(**small, data=data.model_dump(), model={"kind": "tiny", "width": 16, "heads": 2, "vocab_size": 400})
    run = Run.start(tmp_path / "run", config_text="", resolved=made.model_dump(mode="json"), resume=False)
    summary = train(made, run, Progress())
    assert summary["final"] == summary["start"]


def recorded(folder: Path) -> Path:
    """A run of the calculator's that has one group with a right call, and one whose best attempt is worth nothing."""
    earlier = read_yaml(Path("examples/temperature/config.yaml"))
    resolved = earlier | {"name": "earlier", "tasks": {"kind": "arithmetic"}}
    run = Run.start(folder, config_text="", resolved=resolved, resume=False)
    called = {"good": (2.0, ("So: calculator(3*3)->", "Answer: 9")), "bad": (0.0, ("Answer: 1",))}
    with Log(run.path / GROUPS, RoundGroup) as log:
        log.append([record(task(3, tools=("calculator",)), called)])
        log.append([record(task(4, tools=("calculator",)), {"bad": (0.0, ("Answer: 1",))})])
    return run.path


def test_the_best_attempts_of_a_run_are_what_the_agent_stage_learns(tmp_path):
    made = config(recorded={"runs": [str(recorded(tmp_path / "earlier"))], "min_reward": 1.0}, agent={"steps": 1})
    assert not idle_knobs(made) and any("agent.steps" in told for told in idle_knobs(config(agent={"steps": 1})))
    assert [path for _, path, _ in named_places(made.recorded)] == made.recorded.runs
    data = made.data.load()
    (learned,) = conversations(made, data, {name: f"<<{name}>>" for name in data.tools}, "agent")
    text = "".join(message.text for message in learned.messages if message.learned)
    assert "Action:<<calculator>>" in text and '{"expression": "3*3"}' in text and text.rstrip().endswith("9")
    assert any("9" in message.text and not message.learned for message in learned.messages)
    others = {name: f"<<{name}>>" for name in data.tools if name != "calculator"}
    assert conversations(made, data, others, "agent") == []
    assert "agent" in "".join(line for line in outline(made) if "conversations" in line)


def test_attempts_of_another_recipe_s_run_are_refused_by_name(tmp_path):
    Run.start(tmp_path / "earlier", config_text="", resolved=config().model_dump(mode="json"), resume=False)
    made = config(recorded={"runs": [str(tmp_path / "earlier")]}, agent={"steps": 1})
    with pytest.raises(DataError, match="earlier is a run of toolgen; ranked attempts are read from runs of trice"):
        list(stage_checks(made))


def test_what_other_runs_and_files_say_of_held_out_requests_is_not_learned(tmp_path):
    data = config().data.load()
    asked = [data.train[0].text, data.test[0].text, f" {data.validation[0].text.upper()}\n"]
    rows = [{"query": text, "relevant_tool_tokens": ["calculator"]} for text in asked]
    (tmp_path / "retrieval_training.json").write_text(json.dumps(rows))
    shared = [{"conversations": [{"role": "user", "content": text}]} for text in asked]
    (tmp_path / "sharegpt-retrieval.json").write_text(json.dumps(shared))
    made = config(stage_files=str(tmp_path))
    found = conversations(made, data, {name: f"<<{name}>>" for name in data.tools}, "retrieval")
    kept = without_held_out(found, data)
    assert len(found) - len(kept) == 4 and [one for one in found[-6:] if one in kept] == [found[-6], found[-3]]

    log = Log(recorded(tmp_path / "earlier") / GROUPS, RoundGroup)
    with log:
        same = replace(task(3, tools=("calculator",)), prompt=data.test[0].text)
        log.append([record(same, {"good": (2.0, ("So: calculator(3*3)->", "Answer: 9"))})])
    made = config(recorded={"runs": [str(tmp_path / "earlier")]})
    found = conversations(made, data, {name: f"<<{name}>>" for name in data.tools}, "agent")
    assert len(found) == len(without_held_out(found, data)) + 1


def test_tokens_of_published_files_are_ours_by_the_mapping_beside_them_or_their_own(tmp_path):
    made = config(stage_files=str(tmp_path))
    data = made.data.load()
    texts = {name: f"<<{name}>>" for name in data.tools}
    rows = [{"query": "6 * 7?", "relevant_tool_tokens": ["[TOOL_0]", "[TOOL_1]", "<<units>>"]}]
    (tmp_path / "retrieval_training.json").write_text(json.dumps(rows))
    (tmp_path / "tool_mapping.json").write_text(json.dumps({"calculator": "[TOOL_0]", "weather_for_sky": "[TOOL_1]"}))
    assert foreign_tokens(made, data, texts) == ["[TOOL_1]"]
    learned = conversations(made, data, texts, "retrieval")[-3:]
    said = [one.messages[-1].text for one in learned]
    assert said == ["Action:<<calculator>>", "Action:[TOOL_1]", "Action:<<units>>"]
    (tmp_path / "tool_mapping.json").write_text("[]")
    with pytest.raises(DataError, match="a token for each tool"):
        foreign_tokens(made, data, texts)


def test_requests_are_written_of_every_tool_and_learned_beside_the_given_ones():
    plain = config()
    data, texts = plain.data.load(), {name: f"<<{name}>>" for name in plain.data.load().tools}
    written = written_requests(data.tools, 3, seed=1)
    assert len(written) == 3 * len(data.tools) and written == written_requests(data.tools, 3, seed=1)
    assert {query.wanted for query in written} != {query.wanted for query in written_requests(data.tools, 3, seed=2)}
    for query in written:
        said = {word.strip(".").lower() for word in query.text.split()}
        for name in query.wanted:
            told = f"{spoken(data.tools[name].identity.raw)} {spoken(data.tools[name].spec.description)}"
            assert said & set(told.lower().split()), (query.text, name)
    beside = config(retrieval={"written": 3, "repeated": 2, "rehearsed": True})
    learned = conversations(beside, data, texts, "retrieval")
    given = conversations(plain, data, texts, "retrieval")
    own = written_requests(data.tools, 3, beside.seed)
    assert len(learned) == 2 * len(given) + sum(len(query.wanted) for query in own) + len(data.tools)
    held_out = {query.text for query in data.validation + data.test}
    assert not any(text in message.text for one in learned for message in one.messages for text in held_out)
