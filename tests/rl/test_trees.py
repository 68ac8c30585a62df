"""ToolBench's trees, chains and answer_details: read and written without loss, and made of this project's searches."""

import asyncio
import copy
import json
from pathlib import Path

import pytest

from executors.catalog import Catalog
from executors.errors import DataError
from executors.executor import Executor
from executors.tool import tool
from executors.tools.describe import describe_tool
from rl.data.searches import agent_rows, converted, read_trees, searched, sharegpt_rows, write_searches
from rl.data.toolgen import read_seed, read_sharegpt
from rl.data.trees import answer_details, details_of, named, pairs_of, read_searched, searched_of, steps_of, written
from rl.evaluation.suites.toolbench import read_answers
from rollouts.formats.atomic import ACTION, FINISH, AtomicFormat
from rollouts.formats.inline import InlineFormat
from rollouts.search import Searching, search
from rollouts.types import Completion, Task
from tests.executors.shared_data import shared

ANSWER = '{"return_type": "give_answer", "final_answer": "Rain."}'


def record(kind, text, depth, children=None, observation=None, code=None, **more):
    """A node as ToolBench writes it."""
    made = {"is_terminal": False, "pruned": False, "finished": False, "depth": depth, "node_type": kind}
    made |= {"description": text, "Elo": 1000.0, "child_count": len(children or []), "expand_num": 3} | more
    if observation is not None:
        made |= {"observation": observation, "observation_code": code, "io_state": {}}
    return made if children is None else {**made, "children": children}


def tree():
    gave_up = record("Action Input", '{"return_type": "give_up_and_restart"}', 4, [], "{}", 4, pruned=True)
    answered = record("Action Input", ANSWER, 6, [], "{}", 3, finished=True)
    thought = record("Thought", "It rains.", 4, [record("Action", "Finish", 5, [answered])])
    other = record("Action Input", '{"city": "Oslo"}', 2, [thought], '{"error": ""}', 0)
    first = record("Action Input", '{"city": "Rome"}', 2, [record("Action", "Finish", 3, [gave_up])], "no", 11)
    roots = [record("Action", "weather", 1, [first]), record("Action", "weather", 1, [other])]
    root = record("Action Input", "", 0, roots, io_state={})
    function = [{"name": "weather", "description": "Tell it.", "parameters": {"type": "object", "properties": {}}}]
    generation = {"valid_data": True, "final_answer": ANSWER, "query_count": 5, "total_tokens": 77, "chain": []}
    generation |= {"function": function, "train_messages": [[{"role": "user", "content": "?"}]], "query": "Rain?"}
    limits = {"single_chain_max_step": 12, "tree_beam_size": 2}
    whole = {"win": True, "tree": {"size": 9, "max_length": 6, "tree": root}, "forward_args": limits}
    return whole | {"compare_candidates": [[{"depth": 1}]], "answer_generation": generation}


def chain():
    chains = [
        {"chain": [record("Action", "weather", 1), record("Action Input", "{}", 2, None, "x", 0)], "win": False},
        {"chain": [], "win": False},
    ]
    made = tree()
    del made["tree"]
    made["answer_generation"] |= {"valid_data": False, "final_answer": ""}
    return made | {"trys": chains, "try_count": 2}


@pytest.mark.parametrize("content", [tree(), chain()])
def test_a_file_comes_out_as_it_was_read(content):
    before = copy.deepcopy(content)
    assert written(searched_of(content, "DFS_woFilter_w2")) == before
    assert content == before


def test_the_best_way_is_the_last_with_an_answer_and_its_calls_are_read():
    read = searched_of(tree(), "DFS_woFilter_w2")
    assert len(read.ways()) == 2 and (read.queries, read.tokens, read.valid) == (5, 77, True)
    assert pairs_of(read.best()) == [
        ("", "weather", '{"city": "Oslo"}', '{"error": ""}'),
        ("It rains.", "Finish", ANSWER, "{}"),
    ]
    without = searched_of(chain(), "CoT@2")
    assert [step.kind for step in without.best()] == ["Action", "Action Input"]


def test_answer_details_are_counted_and_read_back_without_loss():
    told = answer_details(searched_of(tree(), "DFS_woFilter_w2"))
    answer = told["answer"]
    assert (answer["total_steps"], answer["final_answer"], told["query"]) == (5, ANSWER, "Rain?")
    user = answer["answer_details"][0]["next"][0]
    assert (user["role"], user["message"], user["next"][0]["role"]) == ("user", "", "tool")
    finish = user["next"][0]["next"][0]["next"][0]
    assert finish["message"] == {"name": "Finish", "arguments": ANSWER, "response": ""} and finish["next"] == []
    assert details_of(steps_of(answer["answer_details"])) == answer["answer_details"]
    whole = details_of(searched_of(tree(), "x").steps)
    assert len(whole[0]["next"][0]["next"]) == 2 and details_of(steps_of(whole)) == whole
    with pytest.raises(DataError, match="missing"):
        steps_of([{"role": "tool", "message": {}, "next": []}])


def test_the_published_examples_go_through_without_loss():
    folder = shared("stabletoolbench", "data_example")
    converted = {}
    for name in ("virtual_chatgpt_cot", "virtual_chatgpt_dfs"):
        content = json.loads((folder / "model_predictions_converted" / name / "G1_instruction.json").read_text())
        converted[name] = content
        for one in content.values():
            details = one["answer"]["answer_details"]
            assert details_of(steps_of(details)) == details
    for path in sorted((folder / "answer").rglob("*.json")):
        read = read_searched(path)
        assert written(read) == json.loads(path.read_text())
        if read.valid:
            theirs = converted[path.parents[1].name][path.stem.partition("_")[0]]
            assert answer_details(read) == theirs


@pytest.mark.parametrize(("text", "words"), [("[]", "JSON list"), ("{}", "answer_generation"), ("?", "cannot be read")])
def test_a_file_of_another_form_is_one_clear_error(tmp_path, text, words):
    path = tmp_path / "1_CoT@1.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_searched(path)


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"rain in {city}"


class Says:
    def __init__(self, replies, named=False):
        self.name, self.version, self.replies = "says", 0, list(replies)

    async def complete(self, request):
        said = self.replies.pop(0)
        return said if isinstance(said, Completion) else Completion(text=said, prompt_tokens=3, written_tokens=2)

    def release(self, session):
        pass


def played(replies, catalog, format, **options):
    task = Task(id="q/1", prompt="Rain?", tools=tuple(spec.name for spec in catalog.specs()))
    found = asyncio.run(search(task, Says(replies), Executor(catalog), format, Searching(**options)))
    return searched(found, format, catalog.specs())


def test_a_search_is_written_as_a_tree_and_read_back(tmp_path):
    replies = ["I look. weather(Rome)->", "Answer: ", "weather(Oslo)->", "weather(", "Answer: Rain."]
    made = played(replies, Catalog([weather]), InlineFormat())
    assert made.method == "DFS_woFilter_w2" and made.valid and (made.queries, made.tokens) == (5, 25)
    first, second = made.ways()
    assert [step.kind for step in first] == ["Thought", "Action", "Action Input", "Action", "Action Input"]
    assert (first[-1].code, first[-1].pruned, second[-1].code, second[0].finished) == (4, True, 3, True)
    assert [code for *_, code in [(step.text, step.code) for step in second if step.code is not None]] == [0, 1, 3]
    path = write_searches(tmp_path, {"q/1": made})
    assert written(read_searched(tmp_path / "q-1_DFS_woFilter_w2.json")) == written(made)
    content = json.loads(path.read_text())["q/1"]
    assert json.loads(content["answer"]["final_answer"])["final_answer"] == "Rain."
    assert [tool["name"] for tool in content["available_tools"]] == ["weather", "Finish"]


def test_chains_are_written_as_tries(tmp_path):
    made = played(["weather(Rome)->", "Answer: ", "Answer: Rain."], Catalog([weather]), InlineFormat(), method="chain")
    content = written(made)
    assert [one["win"] for one in content["trys"]] == [False, True] and content["try_count"] == 2
    write_searches(tmp_path, {"1": made})
    assert written(read_searched(tmp_path / "1_CoT@2.json")) == content


def test_toolgen_s_naming_and_calling_are_one_action_and_teach_as_one(tmp_path):
    catalog = Catalog([weather, describe_tool(Catalog([weather]))])
    from executors.types import ToolCall

    named = Completion(text=f"I look.\n{ACTION}weather", calls=(ToolCall("describe", {"tool": "weather"}),))
    called = Completion(text='{"city": "Rome"}\n', calls=(ToolCall("weather", {"city": "Rome"}),))
    made = played([named, called, Completion(text=f"Done.\n{ACTION}{FINISH} Rain.", calls=())], catalog, AtomicFormat())
    assert [(step.kind, step.text) for step in made.best()][:3] == [
        ("Thought", "I look."),
        ("Action", "weather"),
        ("Action Input", '{"city": "Rome"}'),
    ]
    (row,) = agent_rows([made], {"weather": "<<Sky&&weather>>"})
    (step,) = row["plan_sequence"]
    assert (step["action"], step["observation"], row["final_answer"]) == ("<<Sky&&weather>>", "rain in Rome", "Rain.")
    (tmp_path / "agent_tuning.json").write_text(json.dumps([row]))
    (conversation,) = read_seed(tmp_path, "agent")
    learned = "".join(message.text for message in conversation.messages if message.learned)
    shown = "".join(message.text for message in conversation.messages if not message.learned)
    assert "<<Sky&&weather>>" in learned and '{"city": "Rome"}' in learned and "rain in Rome" not in learned
    assert "city (string, required)" in shown and "Observation: rain in Rome" in shown
    (tmp_path / "sharegpt-agent.json").write_text(json.dumps(sharegpt_rows([made])))
    (shared_row,) = read_sharegpt(tmp_path / "sharegpt-agent.json")
    said = [message.text for message in shared_row.messages if message.learned]
    assert said[:3] == ["I look.\n", "weather\n", '{"city": "Rome"}\n'] and "give_answer" in said[-1]


def test_what_ends_without_an_answer_teaches_nothing():
    made = played(["Answer: ", "Answer: "], Catalog([weather]), InlineFormat(), back=1)
    assert agent_rows([made]) == [] and not made.valid and made.answer == ""
    assert written(made)["answer_generation"]["train_messages"] == []


def test_an_id_with_underscores_is_read_whole(tmp_path):
    write_searches(tmp_path, {f"G1_tool-{number}": searched_of(chain(), "CoT@1") for number in (1, 2)})
    assert set(read_trees(tmp_path)) == {"G1_tool-1", "G1_tool-2"}
    assert {one.id for one in read_answers(tmp_path)} == {one.id for one in read_answers(tmp_path / "answers.json")}
    assert [named(Path(name)) for name in ("588_DFS_woFilter_w2.json", "q-1_mine_2.json")] == [
        ("588", "DFS_woFilter_w2"),
        ("q-1", "mine_2"),
    ]


def test_a_folder_of_trees_is_converted(tmp_path):
    (tmp_path / "7_DFS_woFilter_w2.json").write_text(json.dumps(tree()))
    (tmp_path / "8_CoT@2.json").write_text(json.dumps(chain()))
    (tmp_path / "answers.json").write_text("{}")
    made = read_trees(tmp_path)
    answers = converted(made, "answers")
    assert {id: one["answer"]["method"] for id, one in answers.items()} == {"7": "DFS_woFilter_w2", "8": "CoT@2"}
    (row,) = converted(made, "agent")
    assert row["plan_sequence"][0]["action"] == "weather" and row["final_answer"] == "Rain."
    assert converted(made, "sharegpt")[0]["conversations"][0] == {"role": "user", "content": "Rain?", "loss": False}
