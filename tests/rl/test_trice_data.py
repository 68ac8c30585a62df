"""Tasks for TRICE: generators, its own files, public data sets, and mixtures of them."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from executors.errors import ConfigError, DataError
from executors.executor import Executor
from executors.types import ToolCall
from rewards.correctness import correctness, read_number
from rl.config import validate
from rl.data.tasks.arithmetic import Arithmetic
from rl.data.tasks.benchmark import data_folder
from rl.data.tasks.conversions import Conversions
from rl.data.tasks.facts import Facts
from rl.data.tasks.gsm8k import Gsm8k, one_expression
from rl.data.tasks.math_words import MathWords, read_equation
from rl.data.tasks.mixture import Mixture
from rl.data.tasks.trice import TriceFiles, read_answers, read_call
from rl.serving.policies import GoldPolicy
from rollouts.formats.inline import InlineFormat
from rollouts.policy import Source
from rollouts.types import Task
from rollouts.worker import RolloutWorker, WorkerConfig
from tests.executors.endpoints import endpoint
from tests.rewards.attempts import attempt

SMALL: dict[str, Any] = {"demonstrations": 60, "train": 40, "validation": 10, "test": 20}
EMBEDDED = [Arithmetic(**SMALL), Facts(**SMALL), Conversions(**SMALL)]


def found(executor: Executor, task: Task) -> str:
    """What a task's gold call brings."""
    assert task.gold is not None
    return executor.run(task.gold).content


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("config", EMBEDDED, ids=lambda config: config.kind)
def test_every_embedded_gold_call_brings_its_answer(config):
    benchmark = config.load(0)
    executor = Executor(benchmark.catalog)
    for task in (*benchmark.demonstrations, *benchmark.train, *benchmark.validation, *benchmark.test):
        assert found(executor, task).rpartition(": ")[2] == task.answer


@pytest.mark.parametrize("config", EMBEDDED, ids=lambda config: config.kind)
def test_no_held_out_question_is_ever_trained_on(config):
    trained = {
        task.prompt for seed in range(3) for task in (*config.load(seed).train, *config.load(seed).demonstrations)
    }
    held_out = {task.prompt for task in (*config.load(0).validation, *config.load(0).test)}
    assert len(held_out) == 30
    assert not trained & held_out
    assert config.load(1).test == config.load(2).test


def test_famous_facts_come_up_often_enough_to_be_known_by_heart_and_obscure_ones_do_not():
    config = Facts(demonstrations=3000)
    tasks = config.load(0).demonstrations
    asked = [(task.labels["level"], task.gold.arguments["query"]) for task in tasks if task.gold]
    famous = [query for level, query in asked if level == "famous"]
    obscure = [query for level, query in asked if level == "obscure"]
    assert len(famous) / len(set(famous)) > 5 * len(obscure) / len(set(obscure))


def test_another_world_has_other_places():
    places = [{fact.place for facts in Facts(world=world).facts().values() for fact in facts} for world in (0, 1)]
    assert len(places[0] & places[1]) < 20


def test_trices_rows_are_read_as_they_are(tmp_path):
    math = lines(
        tmp_path / "math.jsonl",
        *({"id": f"GSM8K_{n}", "input": f"What is {n} and 1,000?", "answer": str(n + 1000)} for n in range(40)),
    )
    taught = lines(
        tmp_path / "taught.jsonl",
        *(
            {"id": f"SVAMP_{n}", "question": f"Raise {n} to 2.", "answer": [str(n * n)], "tool": f"calculator({n}^2)"}
            for n in range(40)
        ),
    )
    plain = TriceFiles(task="Math", path=math).load(0)
    assert {task.labels["dataset"] for task in plain.test} == {"GSM8K"}
    assert all(task.gold is None for task in plain.train)
    benchmark = TriceFiles(task="Math", path=taught, test=math, instruction="Answer.").load(0)
    assert (len(benchmark.train) + len(benchmark.validation), len(benchmark.test)) == (40, 40)
    task = benchmark.train[0]
    assert task.prompt.startswith("Answer.\nRaise ")
    assert found(Executor(benchmark.catalog), task) == task.answer


def test_trices_stage_one_rows_are_calls_or_answers(tmp_path):
    shared = {"instruction": "You can use a calculator."}
    rows = [
        {**shared, "input": f"Half of {n}?", "output": f"calculator({n}/2)" if n % 2 else f"The answer is {n // 2}."}
        for n in range(60)
    ]
    benchmark = TriceFiles(task="Math", path=lines(tmp_path / "stage1.json", *rows)).load(0)
    tasks = [*benchmark.train, *benchmark.validation, *benchmark.test]
    assert {task.prompt for task in tasks} == {row["input"] for row in rows}
    assert sum(task.gold is not None for task in tasks) == sum(task.answer is None for task in tasks) == 30


@pytest.mark.parametrize(
    ("task", "text", "arguments"),
    [
        ("Math", "calculator((12/60)*50)", {"expression": "(12/60)*50"}),
        ("Math", "So calculator(1,000*2^3).", {"expression": "1000*2**3"}),
        ("QA", "WikiSearch(Jenny (singer))", {"query": "Jenny (singer)"}),
        ("LAMA", "QA(Where is Oslo?)", {"question": "Where is Oslo?"}),
        ("MLQA", "translator(Wo ist Oslo?)", {"text": "Wo ist Oslo?"}),
        ("QA", "it is in Oslo", None),
        ("Math", "calculator(1+", None),
    ],
)
def test_trices_calls_are_found_from_the_first_bracket_to_the_last(task, text, arguments):
    assert read_call(task, text, "it") == (None if arguments is None else ToolCall("it", arguments))


def test_a_multilingual_question_needs_no_teacher(tmp_path):
    rows = [{"id": n, "input": f"Context: A {n}.\nQuestion: Was ist {n}?", "answer": str(n)} for n in range(40)]
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "small"}
    config = TriceFiles(task="MLQA", path=lines(tmp_path / "mlqa.json", *rows), tools=[{"translate": {"model": model}}])
    task = next(task for task in config.load(0).train if task.id == "7")
    assert task.gold == ToolCall("translate", {"text": "Was ist 7?"})


def test_each_task_is_played_with_its_own_tool(tmp_path):
    """Search over passages; a reader and a translator behind an endpoint, over HTTP."""
    passages = [{"title": f"Town {n}", "text": f"It lies in Land {n}."} for n in range(40)]
    corpus = lines(tmp_path / "passages.jsonl", *passages)
    rows = {
        "QA": [{"id": f"WebQuestions_{n}", "instruction": f"Where is Town {n}?", "answer": [f"Land {n}", "a land"],
                "tool": f"WikiSearch(Town {n})"} for n in range(40)],
        "LAMA": [{"id": f"TREx_{n}", "instruction": f"Town {n} lies in ?", "answer": ["Land 7"],
                  "tool": f"QA(Town {n} lies in)"} for n in range(40)],
        "MLQA": [{"id": f"q{n}", "input": f"Context: Town {n}.\nQuestion: Wo ist {n}?", "answer": f"Land {n}"}
                 for n in range(40)],
    }  # fmt: skip
    with endpoint(lambda body: "Land 7" if "lies in" in body["messages"][-1]["content"] else "Where is it?") as fake:
        model = {"base_url": fake.url, "model": "small", "backoff": 0.001}
        tools = {
            "QA": [{"wiki_search": {"path": corpus, "k": 2}}],
            "LAMA": [{"question_answer": {"model": model}}],
            "MLQA": [{"translate": {"model": model}}],
        }
        seen = {}
        for name, its in rows.items():
            path = lines(tmp_path / f"{name}.jsonl", *its)
            content = {"kind": "trice", "task": name, "path": path, "tools": tools[name]}
            benchmark = validate(content, TriceFiles, name).load(0)
            gold = GoldPolicy("gold", benchmark.catalog, InlineFormat())
            config = WorkerConfig(
                policies={"gold": gold}, executor=partial(Executor, benchmark.catalog), format=InlineFormat()
            )
            source = Source(name="gold", policy="gold")
            group = asyncio.run(RolloutWorker(config).play(benchmark.train[:1], [source], "test"))[0]
            seen[name] = group.episodes[0].observations[0].content
            assert correctness(group.task, group.episodes[0], "mixed") == 1.0
    assert seen["QA"].count("It lies in Land") == 2
    assert (seen["LAMA"], seen["MLQA"]) == ("Land 7", "Where is it?")
    assert len(fake.asked) == 2


def test_a_text_is_one_answer_and_never_its_letters():
    assert read_answers("Oslo") == ("Oslo",)
    assert read_answers(["Oslo", "", 3]) == ("Oslo", "3")
    assert correctness(Task(id="t", prompt="?", answer=read_answers("Oslo")[0]), attempt(answer="O"), "contained") == 0


def test_bad_rows_are_named_or_counted(tmp_path):
    rows = [{"id": f"ASDiv_{n}", "input": f"{n}?", "answer": n} for n in range(40)]
    path = lines(tmp_path / "math.jsonl", *rows, {"id": "ASDiv_x", "input": "?"}, rows[0], {"answer": 1})
    with pytest.raises(DataError, match=r"3 of 43 rows .*:41: neither an answer nor a call"):
        TriceFiles(task="Math", path=path).load(0)
    assert len(TriceFiles(task="Math", path=path, skip_bad_rows=True).load(0).rejected) == 3
    with pytest.raises(ConfigError, match="task QA calls wiki_search; say where it comes from"):
        validate({"kind": "trice", "task": "QA", "path": path}, TriceFiles, "mine")
    with pytest.raises(ConfigError, match="takes 'query'"):
        TriceFiles(task="QA", path=path, tools=["calculator"]).load(0)


def test_annotations_become_one_expression_of_the_questions_own_numbers():
    solution = "12 - 3 = <<12-3=9>>9 left.\nThat is 9/60=$<<9/60=0.15>>0.15, so 0.15*200 = <<0.15*200=30>>30.\n#### 30"
    assert one_expression(solution, "30") == "((12-3)/60)*200"
    assert one_expression("<<2+2=5>>5\n#### 5", "5") is None
    assert one_expression("no annotation\n#### 5", "5") is None


def test_gsm8ks_annotations_are_gold_calls_that_come_to_the_answer():
    try:
        data_folder("gsm8k")
    except DataError as error:
        pytest.skip(str(error))
    benchmark = Gsm8k(train=300, test=50).load(0)
    assert (len(benchmark.train), len(benchmark.validation), len(benchmark.test)) == (300, 200, 50)
    assert len(benchmark.demonstrations) > 270
    executor = Executor(benchmark.catalog)
    for task in benchmark.demonstrations:
        assert read_number(found(executor, task)) == pytest.approx(read_number(task.answer or ""), rel=1e-6)


def test_word_problems_are_read_in_each_published_form(tmp_path):
    svamp = [
        {
            "ID": f"chal-{n}",
            "Body": f"Ann has {n} pens",
            "Question": "How many with 2 more?",
            "Equation": f"( {n}.0 + 2.0 )",
            "Answer": n + 2.0,
        }
        for n in range(60)
    ]
    path = tmp_path / "svamp.json"
    path.write_text(json.dumps(svamp))
    benchmark = MathWords(path=str(path)).load(0)
    task = next(task for task in (*benchmark.train, *benchmark.test) if task.id == "svamp-chal-7")
    assert (task.prompt, task.answer) == ("Ann has 7 pens. How many with 2 more?", "9.0")
    assert task.gold == ToolCall("calculator", {"expression": "(7.0+2.0)"})

    problems = "".join(
        f'<Problem ID="p{n}"><Body>Ben has {n} nuts.</Body><Question>With 3 more?</Question>'
        f"<Answer>{n + 3} (nuts)</Answer><Formula>{n}+3={n + 3}</Formula></Problem>"
        for n in range(60)
    )
    asdiv = tmp_path / "asdiv.xml"
    asdiv.write_text(f"<Machine-Reading-Corpus-File><ProblemSet>{problems}</ProblemSet></Machine-Reading-Corpus-File>")
    benchmark = MathWords(path=str(asdiv), dataset="ASDiv").load(0)
    assert {task.labels["dataset"] for task in benchmark.test} == {"ASDiv"}
    executor = Executor(benchmark.catalog)
    assert all(found(executor, task) == task.answer for task in benchmark.demonstrations)
    assert read_equation("X=7.0*2.0", "14") == "7.0*2.0"
    assert read_equation("X=7", "7") is None


def mixture(**changes: Any) -> Mixture:
    parts = {
        "sums": {"tasks": {"kind": "arithmetic", **SMALL}},
        "facts": {"tasks": {"kind": "facts", **SMALL}},
        "units": {"tasks": {"kind": "conversions", **SMALL}},
    }
    return validate({"kind": "mixture", "parts": parts, **changes}, Mixture, "mine")


def test_a_mixture_has_every_part_with_its_own_tool():
    benchmark = mixture().load(0)
    assert benchmark.catalog.names == ("calculator", "wiki_search", "units")
    assert [task.labels["dataset"] for task in benchmark.train].count("facts") == 40
    assert len({task.id for task in benchmark.train}) == 120
    assert {task.tools for task in benchmark.test} == {("calculator",), ("wiki_search",), ("units",)}
    assert {task.tools for task in mixture(tools="all").load(0).train} == {("calculator", "wiki_search", "units")}


def test_what_is_not_trained_on_is_tested_all_the_same():
    whole, split = mixture().load(0), mixture(train_on=["facts"]).load(0)
    assert split.test == whole.test
    assert {task.labels["dataset"] for task in (*split.train, *split.validation, *split.demonstrations)} == {"facts"}
    assert split.catalog.names == whole.catalog.names


def test_shares_use_up_the_scarcest_part():
    content = mixture().model_dump()
    for name, share in (("sums", 0.5), ("facts", 0.25), ("units", 0.25)):
        content["parts"][name]["share"] = share
    train = validate(content, Mixture, "mine").load(0).train
    counts = [sum(task.labels["dataset"] == name for task in train) for name in ("sums", "facts", "units")]
    assert counts == [40, 20, 20]


def test_a_mixture_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="there is no part 'sum'; there are sums, facts, units"):
        mixture(train_on=["sum"])
    two = {name: {"tasks": {"kind": "facts", "world": world, **SMALL}} for world, name in enumerate(("one", "two"))}
    with pytest.raises(ConfigError, match="mean different tools by 'wiki_search'"):
        mixture(parts=two).load(0)
    two["two"]["tasks"]["tool"] = "atlas"
    assert mixture(parts=two).load(0).catalog.names == ("wiki_search", "atlas")
    content = mixture().model_dump()
    content["parts"]["sums"]["share"] = 1.0
    with pytest.raises(ConfigError, match="some have a share and some have none"):
        validate(content, Mixture, "mine")
