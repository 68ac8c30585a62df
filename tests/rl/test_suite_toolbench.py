"""ToolBench's pass and win rates: the rules, the judges, and the published examples recounted."""

import asyncio
import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from executors.errors import DataError, TransientError
from rl.cli import app
from rl.evaluation.suites.toolbench import (
    Answered,
    Called,
    PassRate,
    pass_rate,
    read_answers,
    recounted,
    recounted_votes,
    win_rate,
)
from rl.evaluation.suites.toolbench_judges import ModelJudge, RuleJudge
from tests.executors.shared_data import shared


def finish(text="Rain.", kind="give_answer"):
    return Called(
        thought="", tool="Finish", arguments=json.dumps({"return_type": kind, "final_answer": text}), response=""
    )


def called(response='{"error": "", "response": "rain"}'):
    return Called(thought="", tool="weather", arguments="{}", response=response)


def item(*calls, id="1"):
    return Answered(id=id, query="Rain?", calls=calls)


class Says:
    """A judge by a script, which keeps what it was asked."""

    def __init__(self, *said, choices=()):
        self.said, self.choices, self.asked, self.counts = list(said), list(choices), [], Counter()

    async def verdict(self, item, run, *, whole):
        self.asked.append((item.id, run, whole))
        return self.said.pop(0)

    async def choice(self, first, second, run):
        self.asked.append((first.answer, second.answer, run))
        return self.choices.pop(0)


def passed(items, judge, **options):
    return asyncio.run(pass_rate(items, judge, at_once=1, **options))


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ((called(),), "the last step is not Finish"),
        ((), "the last step is not Finish"),
        ((finish(kind="give_up_and_restart"),), "it gives up, or answers nothing"),
        ((finish(" "),), "it gives up, or answers nothing"),
        ((called(), finish()), ""),
    ],
)
def test_what_has_no_answer_is_unsolved_and_nobody_is_asked(calls, why):
    judge = Says("solved")
    assert item(*calls).unsolved == why
    rate = passed([item(*calls)], judge, times=1)
    assert rate.runs == [0.0 if why else 1.0] and len(judge.asked) == (0 if why else 1)


def test_the_answer_of_broken_json_is_rescued():
    broken = Called(
        thought="", tool="Finish", arguments='{"return_type": "give_answer", "final_answer": "Rain', response=""
    )
    assert item(broken).answer == "Rain" and item(finish("a")).answer == "a"
    assert item(Called(thought="", tool="Finish", arguments="[1]", response="")).answer == ""


def test_an_unsure_judge_is_shown_the_whole_way_and_runs_have_a_deviation():
    judge = Says("unsure", "solved", "unsolved", "unsure", "unsure")
    rate = passed([item(called(), finish())], judge, times=3)
    assert judge.asked == [("1", 0, False), ("1", 0, True), ("1", 1, False), ("1", 2, False), ("1", 2, True)]
    told = rate.as_json()
    assert rate.verdicts["1"] == ("solved", "unsolved", "unsure") and told["runs"] == [100.0, 0.0, 50.0]
    assert (told["pass_rate"], told["deviation"]) == (50.0, 40.8)


def test_errors_of_the_judge_are_left_out_and_counted():
    items = [item(called(), finish(), id=id) for id in "ab"]
    told = passed(items, Says(None, "solved"), times=1).as_json()
    assert (told["pass_rate"], told["error"], told["n"]) == (100.0, 1, 2)


def rates(items, *verdicts):
    return PassRate(verdicts={one.id: verdicts for one in items})


def test_the_better_verdict_wins_and_equals_are_chosen_in_either_order():
    ours, theirs = [item(called(), finish("a"))], [item(called(), finish("b"))]
    judge = Says(choices=["first", "second", "first", "first", "tie", "tie"])
    both = (rates(ours, "solved", "solved", "solved"), rates(theirs, "solved", "solved", "solved"))
    won = asyncio.run(win_rate(ours, theirs, both, judge, rounds=3, at_once=1))
    assert won.votes["1"] == ("ours", "tie", "tie") and won.as_json()["win_rate"] == 100.0
    assert judge.asked[:2] == [("a", "b", 0), ("b", "a", 0)]
    worse = (rates(ours, "unsolved"), rates(theirs, "unsure"))
    won = asyncio.run(win_rate(ours, theirs, worse, Says(), rounds=1))
    assert won.winner("1") == "theirs" and won.as_json()["lose_rate"] == 100.0


def test_a_judge_that_goes_by_place_makes_ties_and_one_that_fails_makes_errors():
    ours, theirs = [item(called(), finish("a"))], [item(called(), finish("b"))]
    both = (rates(ours, "solved"), rates(theirs, "solved"))
    biased = asyncio.run(win_rate(ours, theirs, both, Says(choices=["first"] * 6), rounds=3))
    assert biased.as_json() == {"win_rate": 0.0, "lose_rate": 0.0, "tie_rate": 100.0, "n": 1, "errors": 0}
    failing = asyncio.run(win_rate(ours, theirs, both, Says(choices=[None, "first"]), rounds=1))
    assert failing.as_json() == {"win_rate": 0.0, "lose_rate": 0.0, "tie_rate": 0.0, "n": 0, "errors": 1}
    unknown = (rates(ours, None), rates(theirs, "solved"))
    assert asyncio.run(win_rate(ours, theirs, unknown, Says(), rounds=1)).winner("1") == "error"
    alone = asyncio.run(win_rate(ours, [], (both[0], rates([], "solved")), Says(), rounds=1))
    assert alone.winner("1") == "ours"


def test_the_rule_judges_apologies_failures_and_effort():
    judge = RuleJudge()
    failed = called('{"error": "no such city"}')
    items = [
        item(called(), finish("I'm sorry, no."), id="sorry"),
        item(failed, finish(), id="failed"),
        item(failed, called(), finish(), id="one"),
    ]
    said = passed(items, judge, times=1).verdicts
    assert said == {"sorry": ("unsolved",), "failed": ("unsolved",), "one": ("solved",)}
    assert asyncio.run(judge.choice(items[2], item(called(), finish()), 0)) == "second"
    assert asyncio.run(judge.choice(items[2], items[2], 0)) == "tie"


class Model:
    """A model that says what a script says."""

    def __init__(self, *said):
        self.said, self.asked = list(said), []

    async def __call__(self, messages, **options):
        self.asked.append((messages[-1]["content"], options))
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def test_a_model_s_verdicts_are_read_kept_and_not_asked_for_again(tmp_path):
    kept = tmp_path / "deep" / "kept.jsonl"
    model = Model(
        'Well. {"x": 1} {"reason": "so", "verdict": "Solved"}',
        "what?",
        '{"verdict": "unsure"}',
        '{"verdict": "solved"}',
    )
    one = item(called(), finish())
    judge = ModelJudge(model, kept)
    assert asyncio.run(judge.verdict(one, 0, whole=False)) == "solved"
    assert passed([one], judge, times=2).verdicts["1"] == ("solved", "solved")
    assert judge.counts == {"asked": 3, "kept": 1} and not model.said
    shown, options = model.asked[0]
    assert '"answer": "Rain."' in shown and "calls" not in shown.partition("{")[2].partition("\n")[0]
    assert options["temperature"] == 0.0 and options["response_format"]["type"] == "json_schema"
    assert '"response"' in model.asked[-1][0]
    again = ModelJudge(Model(), kept)
    assert passed([one], again, times=2).verdicts["1"] == ("solved", "solved")
    kept.write_text("{}\n")
    with pytest.raises(DataError, match="no kept verdict"):
        ModelJudge(Model(), kept)


def test_a_model_that_is_away_or_says_nothing_is_an_error_that_is_asked_again(tmp_path):
    kept = tmp_path / "kept.jsonl"
    judge = ModelJudge(Model(TransientError("away"), "?", '{"verdict": "perhaps"}', '{"verdict": "tie"}'), kept)
    one = item(called(), finish())
    assert asyncio.run(judge.verdict(one, 0, whole=False)) is None
    assert asyncio.run(judge.choice(one, one, 0)) is None
    assert asyncio.run(judge.choice(one, one, 0)) == "tie" and judge.counts["errors"] == 2


def details(*calls):
    below = []
    for call in reversed(calls):
        message = {"name": call.tool, "arguments": call.arguments, "response": call.response}
        below = [{"role": "tool", "message": message, "next": below}]
    return [{"role": "system", "message": "", "next": [{"role": "user", "message": "", "next": below}]}]


def test_answers_and_result_files_of_toolbench_are_read(tmp_path):
    path = tmp_path / "answers.json"
    made = {"7": {"query": "Rain?", "available_tools": [], "answer": {"answer_details": details(called(), finish())}}}
    path.write_text(json.dumps(made))
    (read,) = read_answers(path)
    assert (read.id, read.answer, [call.tool for call in read.calls]) == ("7", "Rain.", ["weather", "Finish"])
    results = tmp_path / "pass.json"
    status = {str(run): "AnswerStatus.Solved" for run in range(3)}
    unsolved = {str(run): "AnswerStatus.Unsolved" for run in range(3)}
    results.write_text(
        json.dumps({"588": {"is_solved": unsolved}, "1073": {"is_solved": status}, "608": {"is_solved": status}})
    )
    told = recounted(results).as_json()
    assert (told["pass_rate"], told["deviation"], told["solved"], told["unsolved"]) == (66.7, 0.0, 6, 3)
    votes = tmp_path / "votes.json"
    votes.write_text(json.dumps({"588": {"cot": 0, "dfs": 3, "round_0": "complete"}, "1073": {"cot": 1, "dfs": 2}}))
    assert recounted_votes(votes, "dfs").as_json()["win_rate"] == 100.0
    assert recounted_votes(votes, "cot").as_json()["lose_rate"] == 100.0
    with pytest.raises(DataError, match="'gpt' should be one of two"):
        recounted_votes(votes, "gpt")
    for read_file in (recounted, read_answers):
        path.write_text(json.dumps({"1": {}}))
        with pytest.raises(DataError):
            read_file(path)


def test_the_published_examples_come_to_what_was_published():
    folder = shared("stabletoolbench", "data_example")
    passes = {}
    for name in ("virtual_chatgpt_cot", "virtual_chatgpt_dfs"):
        items = read_answers(folder / "model_predictions_converted" / name / "G1_instruction.json")
        passes[name] = passed(items, RuleJudge(), times=1).as_json()["pass_rate"]
        file = folder / "pass_rate_results" / name / f"G1_instruction_{name}.json"
        assert recounted(file).as_json()["pass_rate"] == passes[name]
    assert list(passes.values()) == [66.7, 100.0]
    votes = folder / "preference_results" / "G1_instruction_virtual_chatgpt_cot_virtual_chatgpt_dfs.json"
    assert recounted_votes(votes, "virtual_chatgpt_dfs").as_json()["win_rate"] == 100.0


def test_the_command_judges_compares_and_recounts(tmp_path):
    answered = {"query": "Rain?", "available_tools": [], "answer": {"answer_details": details(called(), finish())}}
    gave_up = {"query": "Rain?", "available_tools": [], "answer": {"answer_details": details(called())}}
    (tmp_path / "ours.json").write_text(json.dumps({"1": answered, "2": answered}))
    (tmp_path / "theirs.json").write_text(json.dumps({"1": gave_up, "2": answered}))
    against = ["--set", f"against={tmp_path / 'theirs.json'}", "--set", "times=1"]
    command = ["evaluate", "--suite", "toolbench", "--json"]
    done = CliRunner().invoke(app, [*command, "--predictions", str(tmp_path / "ours.json"), *against])
    told = json.loads(done.stdout)
    assert (told["pass_rate"], told["against"]["win_rate"], told["against"]["tie_rate"]) == (100.0, 50.0, 50.0)
    (tmp_path / "pass.json").write_text(json.dumps({"1": {"is_solved": {"0": "AnswerStatus.Unsure"}}}))
    done = CliRunner().invoke(app, [*command, "--judged", str(tmp_path / "pass.json")])
    assert json.loads(done.stdout)["pass_rate"] == 50.0
    done = CliRunner().invoke(app, command)
    assert done.exit_code != 0
