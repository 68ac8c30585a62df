import json

import pytest

from executors.errors import DataError
from executors.tools.calculator import precise
from executors.tools.operations import Operation
from rl.data.tasks.funcqa import FuncQa, read_call, read_json
from rl.data.tasks.gsm8k_xl import Gsm8kXl, chain, marked_solution
from rl.data.tasks.kamel import Kamel
from rl.data.tasks.virtualhome import END, VirtualHome, scene_of
from rl.evaluation.toolken import approximate, colliding, exact_match, judge_plan, legacy_rounding
from tests.executors.shared_data import shared


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))


def test_all_of_funcqa_s_results_are_found_again():
    shared("funcqa")
    loaded = FuncQa().load()
    marked = loaded.train + loaded.validation
    assert (len(loaded.train), len(loaded.validation)) == (611, 39)
    assert sum(len(text.spans) for text in marked) == 647
    assert loaded.rejected == ()
    rows = read_json(shared("funcqa", "train.json"))
    for text, row in zip(marked, rows, strict=True):
        assert [text.text[s.start : s.end] for s in text.spans] == [said.strip() for said in row["tar_number"]]
    assert {name: len(tasks) for name, tasks in loaded.tests.items()} == {
        "one_hop": 60,
        "multi_hop": 68,
        "one_hop_validation": 39,
    }


def test_a_result_that_comes_twice_is_marked_where_the_call_stands():
    shared("funcqa")
    text = next(t for t in FuncQa().load().train if "remaining after 6 days is 0.9^6=" in t.text)
    assert text.text[text.spans[0].start - 6 : text.spans[0].end] == "0.9^6=0.53"


def test_gold_calls_of_one_hop_questions_at_full_precision_and_rounded_as_published():
    values = []
    for row in read_json(shared("funcqa", "funcqa_oh.json")):
        negated, call = read_call(row["func"])
        value = float(Operation(call.tool).value(call.arguments["numbers"]))
        values.append((-value if negated else value, float(row["answer"])))
    assert sum(approximate(value, gold) for value, gold in values) == 58
    assert sum(exact_match(value, gold) for value, gold in values) == 58
    assert sum(approximate(legacy_rounding(value), gold) for value, gold in values) == 51
    wrong = [number for number, (value, gold) in enumerate(values) if not approximate(value, gold)]
    assert wrong == [27, 32]  # the annotated calls have wrong arguments


def test_a_call_that_cannot_be_read_is_a_data_error():
    with pytest.raises(DataError, match="is no call"):
        read_call("add 1 and 2")
    with pytest.raises(DataError, match="none of FuncQA's"):
        read_call("<cube>(3)=27")


def test_gsm8k_xl_s_chains_all_come_to_their_results():
    rows = [json.loads(line) for line in shared("gsm8k_xl", "test.jsonl").read_text().splitlines()]
    right = 0
    for row in rows:
        steps = chain(row)
        right += all(precise(expression) == pytest.approx(result, rel=1e-9) for expression, result in steps) and (
            steps[-1][1] == row["enhanced_result"]
        )
    assert right == len(rows) == 568


def test_gsm8k_xl_s_training_texts_are_rebuilt_from_gsm8k():
    shared("gsm8k")
    loaded = Gsm8kXl().load()
    marked = loaded.train + loaded.validation
    assert len(marked) == 6056
    assert len(loaded.validation) == 1000
    assert all("<<" not in text.text for text in marked)
    assert sum(len(text.spans) for text in marked) == 19214
    assert {span.tool for text in marked for span in text.spans} == {"add", "subtract", "multiply", "divide"}
    first = loaded.tests["enlarged"][0]
    assert "lay 4096 eggs" in first.prompt and first.answer == "32040"


def test_a_solution_that_mixes_operations_is_left_out_and_written_forms_are_kept():
    mixed = {"question": "?", "answer": "It is <<1+2*3=7>>7.\n#### 7"}
    assert marked_solution(mixed) is None
    grouped = marked_solution({"question": "?", "answer": "It is $<<4500*5=22500>>22,500.\n#### 22500"})
    assert grouped is not None
    assert [(grouped.text[s.start : s.end], s.tool) for s in grouped.spans] == [("22,500", "multiply")]
    assert marked_solution({"question": "?", "answer": "No calculation.\n#### 7"}) is None


def test_kamel_has_its_relations_in_order_and_its_sentences_marked():
    shared("kamel")
    loaded = Kamel(relations=234, validation=0).load()
    assert len(loaded.tools) == 234 and loaded.tools[0] == "P1408"
    assert (len(loaded.train), len(loaded.rejected)) == (9094, 2)
    assert len({text.spans[0].tool for text in loaded.train}) == 233
    assert len(colliding(loaded.tools)) == 103
    assert len({name for pair in colliding(loaded.tools) for name in pair[:1]}) == 42


@pytest.mark.parametrize("relations", [30, 60, 100, 234])
def test_kamel_offers_the_first_relations_and_asks_500_questions(relations):
    shared("kamel")
    loaded = Kamel(relations=relations, per_tool=10).load()
    assert {text.spans[0].tool for text in loaded.train} <= set(loaded.tools)
    assert len(loaded.catalog) == relations
    assert len(loaded.tests["questions"]) == 500
    assert {task.labels["relation"] for task in loaded.tests["questions"]} <= set(loaded.tools)
    counts = [sum(text.spans[0].tool == tool for text in loaded.train) for tool in loaded.tools]
    assert max(counts) == 10


def test_every_step_of_virtualhome_s_plans_is_found_and_stands_in_the_last_task():
    shared("virtualhome")
    loaded = VirtualHome().load()
    marked = loaded.train + loaded.validation
    assert sum(len(text.spans) for text in marked) == 5005
    assert all(text.text[s.start : s.end] == s.tool for text in marked for s in text.spans)
    assert all(text.spans[0].start > text.text.rfind("Hint:") for text in marked)
    assert len({s.tool for text in marked for s in text.spans}) == 53
    assert len(loaded.tools) == len(loaded.catalog) == 58
    assert {len(tasks) for tasks in loaded.tests.values()} == {47}


def test_gold_plans_are_grounded_and_nearly_all_legal():
    shared("virtualhome")
    loaded = VirtualHome().load()
    verbs = [token for token in loaded.tools if token.startswith("[") and token != END]
    judged = [
        judge_plan([s.tool for s in text.spans], scene_of(text.text), verbs)
        for text in loaded.train + loaded.validation
    ]
    assert all(verdict.grounded for verdict in judged)
    assert [verdict.fault for verdict in judged].count(None) == 243
    assert [verdict.fault for verdict in judged].count("REPEATED") == 4


def test_demonstrations_have_the_calls_before_their_results():
    shared("funcqa")
    loaded = FuncQa().load()
    assert len(loaded.demonstrations) == len(loaded.train)
    assert loaded.demonstrations[0].endswith("5572 mod 3241=<remainder>(5572, 3241)=2331.")
    assert sum("<" in text for text in loaded.demonstrations) >= 600
