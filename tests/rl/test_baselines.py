"""ToolkenGPT's baselines: what their prompts show, and a model over HTTP that answers by them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from executors.errors import ConfigError
from rl.data.prompting import Prompting
from rl.data.tasks.funcqa import FuncQa
from rl.data.tasks.gsm8k_xl import Gsm8kXl
from rl.data.tasks.kamel import Kamel
from rl.evaluation.suites import funcqa
from rl.evaluation.suites.command import evaluate_suite
from rl.evaluation.suites.funcqa import FuncQaOptions
from rl.models.choice import TinyModel
from rl.models.load import build_tokenizer_for, build_weights
from rollouts.worker import TooManyFailuresError
from tests.executors.endpoints import FakeEndpoint, endpoint
from tests.executors.shared_data import shared

CALL = re.compile(r"<(\w+)>\(([^()]*)\)=")


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", str(shared()))
    shared("funcqa")


def settings(fake: FakeEndpoint, kept: Path, **more: Any) -> list[str]:
    policy = {"kind": "endpoint", "base_url": fake.url, "model": "m", "retries": 0, "backoff": 0}
    named = {"policy": policy, "kept": str(kept), **more}
    return [f"{name}={json.dumps(value)}" for name, value in named.items()]


def figures(capsys, *args, **more) -> dict[str, Any]:
    evaluate_suite("toolkengpt", None, None, settings(*args, **more), as_json=True, out=None)
    return json.loads(capsys.readouterr().out)


def asked(fake: FakeEndpoint, place: int) -> str:
    (message,) = fake.asked[place]["messages"]
    return message["content"]


def examples(template: str) -> str:
    return template.rpartition("[QUESTION]")[0]


def test_each_method_shows_what_it_says():
    data = FuncQa().load()
    shown = {
        method: Prompting(method=method, marker="answer is").template(data)
        for method in ("zero_shot", "cot", "react", "icl", "descriptions")
    }
    assert all(text.endswith("Q: [QUESTION]\nA:") for text in shown.values())
    assert [text.count("\nA:") - 1 for text in shown.values()] == [0, 4, 4, 13, 0]
    assert [
        len(CALL.findall(examples(text))) - text.count("written <tool>(arguments)=") for text in shown.values()
    ] == [*(0, 0, 4, 13, 0)]
    assert {tool for tool, _ in CALL.findall(shown["icl"])} - {"tool"} == set(data.tools)
    assert ["<gcd> The greatest common divisor" in text for text in shown.values()] == [False, False, False, True, True]
    assert shown["cot"].count("So, the answer is") == 4 and shown["zero_shot"].count("So, the answer is") == 1


def test_kamel_s_lists_are_as_long_as_published_and_descriptions_show_other_relations():
    shared("kamel")
    data = Kamel(relations=100).load()
    icl, told = (Prompting(method=method).template(data) for method in ("icl", "descriptions"))
    listed = re.compile(r"^<(P\d+)> ", re.MULTILINE)
    assert listed.findall(icl) == list(data.tools[:30]) and listed.findall(told) == list(data.tools[:60])
    assert {tool for tool, _ in CALL.findall(icl)} - {"tool"} == set(data.tools[:30]) - {"P452"}  # asked by no row
    others = [tool for tool, _ in CALL.findall(told) if tool != "tool"]
    assert len(others) == 8 and not set(others) & set(data.tools[:60])
    react = Prompting(method="react", shots=30).template(data)
    assert {tool for tool, _ in CALL.findall(react)} - {"tool"} <= set(data.tools)


def test_worked_answers_come_true_and_are_of_training_rows():
    data = FuncQa().load()
    assert len(data.worked) == 593  # of 608, 14 calls give something else than the text has, one question is held out
    held_out = {task.prompt.strip() for tasks in data.tests.values() for task in tasks}
    assert not held_out & {one.question for one in data.worked}
    shared("gsm8k")
    solved = Gsm8kXl().load().worked
    assert len(solved) > 4000 and all(len(CALL.findall(one.called)) == len(one.tools) for one in solved)
    assert all("\n" not in one.answer and one.answer.endswith(f"#### {one.result}") for one in solved)


def test_calls_written_behind_react_s_prompt_are_made_and_the_log_scores_the_same(tmp_path, capsys):
    def said(body):
        text = body["messages"][-1]["content"]
        done = text.endswith("=0.39365888057")
        return ". So, the answer is 0.3937.\n\nQ: Another one?" if done else " It is worth <power>(0.89, 8"

    with endpoint(said) as fake:
        told = figures(capsys, fake, tmp_path / "kept", at_most=1)
        assert asked(fake, 0).count("\nA:") == 5 and fake.asked[0]["stop"] == [")=", "\nQ:"]
        assert asked(fake, 1) == f"{asked(fake, 0)} It is worth <power>(0.89, 8)=0.39365888057"
        assert fake.asked[0]["max_tokens"] == 512 and "tools" not in fake.asked[0]
        again = figures(capsys, fake, tmp_path / "kept", at_most=1)
        assert again == told and len(fake.asked) == 2
    assert (told["n"], told["tool"], told["answer"], told["failed"]) == (1, 1, 1, 0)
    log = tmp_path / "kept" / "inference.jsonl"
    row = json.loads(log.read_text())
    assert row["func_calls"] == ["<power>(0.89, 8) = 0.39365888057"]
    assert row["generation"] == " It is worth <power>(0.89, 8)=0.39365888057. So, the answer is 0.3937.\\n\\nQ:"
    full = funcqa.score(log, FuncQaOptions())
    for name in ("em", "approx", "round", "legacy_em"):
        assert full[name] * 60 == pytest.approx(told[name], abs=0.01)


def test_a_bracket_that_is_no_call_does_not_end_the_answer(tmp_path, capsys):
    def said(body):
        return "7. So, the answer is 0.39" if body["messages"][-1]["content"].endswith("(3+4)=") else " First (3+4)="

    with endpoint(said) as fake:
        told = figures(capsys, fake, tmp_path / "kept", at_most=1)
    assert (told["em"], told["failed"], told["tool"]) == (1, 1, 0)


def test_what_an_endpoint_writes_beyond_the_answer_is_no_part_of_it(tmp_path, capsys):
    with endpoint(" So, the answer is 0.39.\n\nQ: And 1 + 2?\nA: <add>(1, 2)=3") as fake:
        told = figures(capsys, fake, tmp_path / "kept", at_most=1)
    assert (told["em"], told["call_rate"]) == (1, 0)


def test_gsm8k_s_answers_stand_behind_their_marker(tmp_path, capsys):
    shared("gsm8k")
    with endpoint("It is 4096.\nSo 32,040 in all.\n#### 32,040") as fake:
        data = {"kind": "gsm8k_xl"}
        told = figures(capsys, fake, tmp_path / "kept", data=data, method="zero_shot", at_most=2)
        assert asked(fake, 0).startswith("Answer the question. Work it out, and end with ####")
        assert fake.asked[0]["stop"] == ["\nQuestion:"]
    assert (told["n"], told["em"], told["call_rate"]) == (2, 0.5, 0) and "tool" not in told


def test_kamel_s_first_call_is_the_choice_and_words_count_where_there_is_none(tmp_path, capsys):
    shared("kamel")

    def said(body):
        first = "1975–76 Albanian Superliga" in body["messages"][-1]["content"].rpartition("Question:")[2]
        return " <P1132>(1975–76 Albanian Superliga" if first else " <P17>(it"

    with endpoint(said) as fake:
        told = figures(capsys, fake, tmp_path / "kept", data={"kind": "kamel"}, method="icl", at_most=3)
        assert len(fake.asked) == 3 and fake.asked[0]["max_tokens"] == 30
    assert (told["tool"], told["accuracy"], told["wrong_relation"]) == (0.3333, 0.3333, 0.6667)


def test_what_was_not_reached_is_told_and_asked_again(tmp_path, capsys):
    from fastapi import Response

    with endpoint(Response(status_code=500)) as fake, pytest.raises(TooManyFailuresError, match="2 of 2 episodes"):
        figures(capsys, fake, tmp_path / "kept", at_most=2)
    with endpoint("So, the answer is 0.3936") as fake:
        assert figures(capsys, fake, tmp_path / "kept", at_most=2)["em"] == 0.5
        assert len(fake.asked) == 2
        with pytest.raises(ConfigError, match="made by other settings"):
            figures(capsys, fake, tmp_path / "kept", at_most=2, method="cot")


def test_a_model_directory_reads_its_own_beginning_and_answers(tmp_path, capsys):
    config = TinyModel(width=16, heads=2, layers=1, vocab_size=400, max_length=1024)
    tokenizer = build_tokenizer_for(config, [text.text for text in FuncQa().load().train[:50]], ())
    build_weights(config, tokenizer, 0).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    named = {"policy": {"kind": "huggingface", "path": str(tmp_path / "model")}, "kept": str(tmp_path / "kept")}
    more = {"at_most": 2, "shots": 2, "max_tokens": 8, "max_calls": 1}
    assignments = [f"{name}={json.dumps(value)}" for name, value in {**named, **more}.items()]
    evaluate_suite("toolkengpt", None, None, assignments, as_json=False, out=tmp_path / "all.json")
    assert "n 2, unreached 0" in capsys.readouterr().out
    assert json.loads((tmp_path / "all.json").read_text())["prompt"].startswith(tokenizer.bos_token)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"questions": "three_hop"}, "has no test set 'three_hop'; it has one_hop, multi_hop"),
        ({"method": "zero_shot", "shots": 2}, "zero_shot shows none"),
        ({"data": {"kind": "virtualhome"}}, "take method icl"),
        ({"template": "nowhere.txt"}, "cannot read nowhere.txt"),
        ({"policy": {"kind": "endpoint", "base_url": "http://x/v1", "model": "m", "mode": "tools"}}, "leave the mode"),
        ({"policy": None}, "say --set policy"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_is_said_before_anything_is(tmp_path, capsys, more, says):
    shared("virtualhome")
    with endpoint("hm") as fake:
        with pytest.raises(ConfigError, match=re.escape(says)):
            figures(capsys, fake, tmp_path / "kept", **more)
        assert not fake.asked


def test_a_template_of_one_s_own_stands_for_the_prompt(tmp_path, capsys):
    shared("virtualhome")
    (tmp_path / "mine.txt").write_text("Now: [QUESTION] =\n")
    with endpoint("The answer is 0.39") as fake:
        assert figures(capsys, fake, tmp_path / "kept", template=str(tmp_path / "mine.txt"), at_most=1)["em"] == 1
        assert asked(fake, 0).startswith("Now: A car depreciates") and asked(fake, 0).endswith(" =")
        plans = {"data": {"kind": "virtualhome"}, "method": "icl", "at_most": 1}
        figures(capsys, fake, tmp_path / "plans", **plans)
        assert fake.asked[1]["stop"] == ["[END]"] and asked(fake, 1).count("Plan:") == 4
