"""The pages about runs."""

import json

import pytest
from fastapi.testclient import TestClient

from rl.data.rounds import GROUPS
from rl.models.tiny import build_tokenizer
from rl.pages.app import pages_app
from rl.pages.attempts import Attempts
from rl.pages.curves import curves
from rl.pages.shelf import headline
from rl.pages.watch import watched
from rl.run import Run, write_json
from tests.rl.pages_run import add_round, make_run


@pytest.fixture
def client(tmp_path):
    make_run(tmp_path / "one")
    make_run(tmp_path / "two", seed=1)
    return TestClient(pages_app(tmp_path))


def test_the_first_page_lists_the_runs_with_what_changed(client):
    page = client.get("/").text
    assert "/run?name=one" in page and "/run?name=two" in page
    assert "accuracy 0.5 → <b>0.9</b>" in page
    assert client.get("/health").json() == {"status": "ok", "runs": 2}


def test_a_runs_page_shows_its_figures_its_curves_and_its_config(client):
    page = client.get("/run?name=one").text
    assert "0.9<small>0.4 – 0.6</small>" in page
    assert 'aria-label="loss by step: from 1 to 0.25"' in page
    assert "Constant: constant 2." in page
    assert "seed: 0" in page


def test_states_with_other_figures_and_words_beside_them_have_columns_of_their_own(tmp_path):
    run = Run.start(tmp_path / "run", config_text="", resolved={"recipe": "ste", "name": "x"}, resume=False)
    cell = {"value": 0.25, "low": 0.125, "high": 0.5}
    summary = {
        "base": {"n": 3, "attempts": "base.jsonl", "correct/new": cell},
        "bm25": {"n": 3, "tool": cell | {"value": 0.75}},
        "change": {"tool": cell},
        "ft": {"n": 3, "correct/new": cell | {"value": 0.5}},
        "published": {"name": "ft"},
        "explored": {"trials": 4},
    }
    assert headline(summary) == {"correct/new": (0.25, 0.5)}
    again = {**summary, "published": {"name": "ft-2"}, "ft": summary["ft"] | {"attempts": "ft-2.jsonl"}}
    assert headline(again) == {"correct/new": (0.25, 0.5)}  # what was learned from more than before
    write_json(run.folder("evaluation") / "summary.json", summary)
    page = TestClient(pages_app(tmp_path)).get("/run?name=run")
    assert page.status_code == 200
    assert "<th>correct, new</th><th>tool</th>" in page.text
    assert "bm25</th>\n<td></td><td>0.75" in page.text
    assert "It has logged no attempts at tasks." in page.text and "This run logged no curves." in page.text


def test_every_candidate_of_a_task_stands_side_by_side_in_the_order_of_its_reward(client):
    page = client.get("/run/task?name=one&task=t1&place=round-1").text
    assert page.index('aria-label="hot"') < page.index('aria-label="cool"') < page.index('aria-label="odd"')
    assert [page.count(f'<span class="rank">{rank}</span>') for rank in (1, 2, 3)] == [1, 1, 1]
    assert "malformed: the bracket is not closed" in page
    assert '<div class="observation ok"><small>ok, 2.0 ms</small><pre>42</pre>' in page
    assert "version 3" in page


def test_equal_rewards_share_a_rank(client):
    page = client.get("/run/task?name=one&task=t2&place=round-0").text
    assert page.count('<span class="rank">1</span>') == 2


def test_the_same_task_is_linked_at_every_round_and_state(client):
    page = client.get("/run/task?name=one&task=t1&place=round-0").text
    assert [page.count(f"place={place}") for place in ("round-1", "start", "final")] == [1, 1, 1]
    assert "<code>42</code>" in client.get("/run/task?name=one&task=t1&place=final").text
    assert "<code>41</code>" in client.get("/run/task?name=one&task=t1&place=start").text


def test_a_task_is_a_line_of_a_users_own_tasks_file(client):
    page = client.get("/run/task?name=one&task=t1").text
    case = page.split('data-case="')[1].split('"')[0].replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">")
    assert json.loads(case) == {
        "id": "t1",
        "prompt": "What is <b>6</b> * 7?",
        "answer": "42",
        "call": {"tool": "calculator", "arguments": {"expression": "6*7"}},
    }


def test_what_a_model_or_a_task_says_is_text_and_never_markup(client):
    for path in ("/run/tasks?name=one", "/run/task?name=one&task=t1"):
        page = client.get(path).text
        assert "<b>6</b>" not in page and "&lt;b&gt;6" in page


@pytest.mark.parametrize(
    ("query", "there"),
    [
        ("", ["t1", "t2"]),
        ("&only=mixed", ["t1", "t2"]),
        ("&only=tied", ["t2"]),
        ("&only=malformed", ["t1"]),
        ("&find=COLOUR", ["t2"]),
        ("&place=final", ["t1"]),
        ("&order=spread", ["t1", "t2"]),
        ("&order=worst", ["t2", "t1"]),
        ("&find=nothing", []),
        ("&place=nowhere&order=odd&page=99", ["t1", "t2"]),
    ],
)
def test_tasks_are_filtered_and_ordered_by_what_stands_in_the_address(client, query, there):
    page = client.get(f"/run/tasks?name=one{query}").text
    found = [part.split("&amp;")[0] for part in page.split("/run/task?name=one&amp;task=")[1:]]
    assert found == there


def test_what_became_of_the_calls_is_counted_by_tool(client):
    page = client.get("/run/tools?name=one").text
    assert "<code>calculator</code></td><td>4</td>" in page
    assert "2 × tool_error: division by zero" in page
    assert "(malformed)" in page


def test_two_runs_are_compared_by_their_figures_and_their_settings(client):
    page = client.get("/compare?a=one&b=two").text
    assert "<td><code>seed</code></td><td>0</td><td>1</td>" in page
    assert "+0.000" in page


@pytest.mark.parametrize(
    "path", ["/run?name=three", "/run?name=../one", "/run?name=/etc", "/run/task?name=one&task=t9", "/nothing"]
)
def test_what_is_not_there_is_said_to_be_so(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Not here" in answer.text


def test_a_folder_without_runs_says_how_to_make_one(tmp_path):
    assert "apprentice train" in TestClient(pages_app(tmp_path)).get("/").text


def test_a_run_that_goes_on_is_read_on_from_where_it_was(tmp_path):
    run = make_run(tmp_path / "one", finished=False)
    attempts = Attempts(run.path)
    attempts.refresh()
    assert attempts.places == ["round-0", "round-1", "start", "final"]
    before = len(attempts.entries)
    add_round(run, 2)
    with (run.path / GROUPS).open("ab") as file:
        file.write(b'{"round":9,"half a li')
    attempts.refresh()
    assert len(attempts.entries) == before + 2
    assert attempts.tools["calculator"].calls == 6
    (run.path / GROUPS).unlink()
    attempts.refresh()
    assert attempts.places == ["start", "final"]
    assert "calculator" not in attempts.tools


def test_a_damaged_line_is_left_out(tmp_path):
    run = make_run(tmp_path / "one")
    path = run.path / GROUPS
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    attempts = Attempts(run.path)
    attempts.refresh()
    entry = attempts.of_task("t1")[0]
    assert attempts.group(entry).task.id == "t1"


def test_tokens_are_shaded_by_how_unlikely_the_policy_found_them_and_forced_ones_marked(tmp_path):
    run = make_run(tmp_path / "one")
    build_tokenizer(["calculator"]).save_pretrained(run.path / "checkpoints" / "step-0")
    page = TestClient(pages_app(tmp_path)).get("/run/task?name=one&task=t1&place=round-0").text
    assert '<span class="s0 forced" title="5, log-probability -0.100, forced">' in page
    assert '<span class="s8" title="6, log-probability -2.000">' in page


def test_curves_are_thinned_and_a_repeated_step_counts_once():
    records = [{"stage": "a", "step": step, "loss": float(step)} for step in (*range(1000), 999)]
    (curve,) = curves(records)["a"]
    assert len(curve.points) <= 400
    assert curve.points[-1][0] == 999
    assert curves([{"stage": "a", "step": 0, "loss": 1.0}]) == {}


def test_a_run_is_watched_at_a_port_of_its_own_while_it_goes_on(tmp_path):
    import httpx

    run = make_run(tmp_path / "one", finished=False)
    said = []
    with watched(run.path, said.append):
        url = said[0].split()[-1]
        assert url.startswith("http://127.0.0.1:")
        assert 'data-live="/run/curves?name=."' in httpx.get(f"{url}/run?name=.").text
        assert "<html" not in httpx.get(f"{url}/run/curves?name=.").text
    with pytest.raises(httpx.TransportError):
        httpx.get(url)
    with watched(run.path, said.append, wanted=False):
        assert len(said) == 1
