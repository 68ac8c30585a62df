"""The command, end to end: a short run, killed and resumed; its figures, its report; the same as a submitted job."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import yaml

from rl.data.rounds import RoundGroup
from rollouts.store import Log

ROOT = Path(__file__).parents[2]
CONFIG = "configs/trice/tiny.yaml"
SHORT = [
    "cloning.steps=60",
    "cloning.save_every=20",
    "improvement.rounds=6",
    "improvement.tasks_per_round=24",
    "improvement.batch_size=8",
    "improvement.validate_every=2",
    "tasks.demonstrations=1500",
    "tasks.train=150",
    "tasks.validation=20",
    "tasks.test=40",
    "baselines.continued_cloning_steps=10",
    "ray.dashboard=false",
]

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rl", *arguments]


def environment(**changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return inherited | {"OMP_NUM_THREADS": "1"} | changes


def wait_for(condition, process, seconds=240):
    began = time.time()
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.time() - began < seconds
        time.sleep(0.05)


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory) -> Path:
    """A run that is told to stop in stage 1, resumed, killed with all its processes in stage 2, and resumed again."""
    run = tmp_path_factory.mktemp("runs") / "short"
    arguments = command("train", CONFIG, *SHORT, "--run-dir", str(run))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    told = subprocess.Popen(arguments, cwd=ROOT, env=environment(), **streams)
    wait_for(lambda: (run / "checkpoints" / "step-20").exists(), told)
    told.send_signal(signal.SIGINT)
    _, said = told.communicate(timeout=60)
    assert told.returncode == 130, said
    assert "nothing is lost" in said
    assert "--resume" in said
    assert "Traceback" not in said

    killed = subprocess.Popen([*arguments, "--resume"], cwd=ROOT, env=environment(), **streams)
    state = run / "state.json"
    wait_for(lambda: state.exists() and "2" in json.loads(state.read_text()).get("validated", {}), killed)
    family = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.communicate()
    psutil.wait_procs(family, timeout=30)

    done = subprocess.run(
        [*arguments, "--resume"], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run / "console.txt").write_text(done.stdout)
    return run


def test_after_a_kill_every_group_is_counted_once(killed_and_resumed):
    records = list(Log(killed_and_resumed / "groups" / "improve.jsonl", RoundGroup).read())
    counts = Counter((record.round, record.group.task.id) for record in records)
    assert set(counts.values()) == {1}
    assert Counter(round for round, _ in counts) == dict.fromkeys(range(6), 24)
    assert all(record.round - record.version <= 1 for record in records)


def test_after_a_kill_every_step_was_taken(killed_and_resumed):
    lines = [json.loads(line) for line in (killed_and_resumed / "metrics.jsonl").read_text().splitlines()]
    steps = {line["step"] for line in lines if line["stage"] in ("clone", "improve")}
    assert steps == set(range(78))
    stages = [json.loads(line)["stage"] for line in (killed_and_resumed / "ledger.jsonl").read_text().splitlines()]
    assert stages == ["clone", "improve"]


def test_the_summary_has_every_figure_of_every_state(killed_and_resumed):
    summary = json.loads((killed_and_resumed / "evaluation" / "summary.json").read_text())
    for state in ("start", "final", "continued_cloning", "always_call", "always_direct"):
        assert summary[state]["n"] == 40
        for figure in ("accuracy", "decisions", "needless", "missed", "malformed", "call_rate", "utility"):
            assert summary[state][figure].keys() == {"value", "low", "high"}
    assert summary["always_call"]["call_rate"]["value"] == 1.0
    assert summary["always_direct"]["call_rate"]["value"] == 0.0
    assert summary["groups"]["groups"] == 144
    assert summary["groups"]["stale"] == 0
    assert sum(summary["levels"]["train"].values()) == summary["groups"]["candidates"]


def test_the_report_is_one_page_that_needs_nothing_else(killed_and_resumed):
    page = (killed_and_resumed / "report.html").read_text()
    assert len(page) < 3_000_000
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=|@import|url\(", page.partition("<script>")[0])
    assert "<script src" not in page
    for words in ("always call", "continued cloning", "Candidates of one task, ranked", "forced-direct"):
        assert words in page


def test_the_console_is_short_and_says_what_to_do_next(killed_and_resumed):
    console = (killed_and_resumed / "console.txt").read_text()
    assert len(console.splitlines()) <= 40
    assert f"apprentice serve {killed_and_resumed}" in console.replace("\n", "")
    assert "Traceback" not in console


def test_checkpoints_load_with_from_pretrained(killed_and_resumed):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    best = killed_and_resumed / "checkpoints" / "best"
    assert best.resolve().name in {"step-60", "step-66", "step-72", "step-78"}
    assert AutoModelForCausalLM.from_pretrained(best).config.hidden_size == 96
    assert AutoTokenizer.from_pretrained(best).eos_token == "<end>"


def test_a_finished_run_can_be_evaluated_again(killed_and_resumed):
    done = subprocess.run(
        command("evaluate", str(killed_and_resumed), "--json"),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    summary = json.loads((killed_and_resumed / "evaluation" / "summary.json").read_text())
    assert figures["accuracy"] == summary["final"]["accuracy"]


def test_a_run_is_not_started_over_another(killed_and_resumed):
    done = subprocess.run(
        command("train", CONFIG, *SHORT, "--run-dir", str(killed_and_resumed)),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "--resume continues it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_submitted_job_trains_and_its_exit_code_is_the_runs(tmp_path):
    """``ray job submit --working-dir . -- python -m rl train ...`` against a running cluster."""
    port, dashboard = 6399, 8299
    session = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a short path: it holds sockets
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    ours = environment(
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # as in an activated environment
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_TRAIN_ENABLE_STATE_TRACKING="1",
    )
    ray = str(Path(sys.executable).with_name("ray"))
    started = subprocess.Popen(
        [
            *(ray, "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=true"),
            *(f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=8", "--ray-client-server-port=20001"),
            *("--dashboard-agent-listen-port=52399", "--metrics-export-port=8298"),
            *(f"--temp-dir={session}", "--object-store-memory=200000000"),
        ],
        env=ours,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{dashboard}"
        storage = tmp_path / "storage"
        submit = [ray, "job", "submit", "--address", address, "--working-dir", str(_code(tmp_path)), "--"]
        wait_for(lambda: _answers(address, token), started, 90)
        job = ["python", "-m", "rl", "train", CONFIG, *SHORT, "improvement.rounds=2", f"storage={storage}"]
        done = subprocess.run([*submit, *job], env=ours, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2. Improve: 2 rounds" in done.stdout
        assert (storage / "trice-tiny" / "evaluation" / "summary.json").is_file()
        assert "apprentice_episodes_total" in _metrics()

        wrong = subprocess.run([*submit, *job, "seeed=1"], env=ours, capture_output=True, text=True, timeout=120)
        assert wrong.returncode != 0
        assert "unknown key 'seeed'; did you mean 'seed'?" in wrong.stdout + wrong.stderr
    finally:
        family = psutil.Process(started.pid).children(recursive=True) if started.poll() is None else []
        for member in [started, *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        started.wait()
        shutil.rmtree(session, ignore_errors=True)


def _code(tmp_path: Path) -> Path:
    """A copy of the project's own code, as a user's working directory would be."""
    folder = tmp_path / "code"
    for name in ("rl", "rollouts", "executors", "rewards", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def _answers(address: str, token: Path) -> bool:
    import httpx

    try:
        headers = {"Authorization": f"Bearer {token.read_text()}"}
        return httpx.get(f"{address}/api/version", headers=headers, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _metrics() -> str:
    import httpx

    return httpx.get("http://127.0.0.1:8298/metrics", timeout=10).text


def test_mistakes_are_one_paragraph_with_their_exit_code(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "1+1?", "answer": "2"}) + "\n" + json.dumps({"prompt": "2+2?"}) + "\n")
    config = yaml.safe_load((ROOT / CONFIG).read_text())
    config["tasks"] = {"kind": "jsonl", "path": str(rows)}
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(config))
    cases = [
        (("train", CONFIG, "seeed=1"), 2, "did you mean 'seed'?"),
        (("train", "configs/trice/none.yaml"), 2, "no config at"),
        (("train", CONFIG, "sources.0.policy=peeer"), 2, "there are gold, live, peer"),
        (("check", str(mine)), 3, "row 2: no answer"),
        (("train", str(mine)), 3, "row 2: no answer"),
        (("serve", str(tmp_path)), 3, "is not a run"),
        (("train", CONFIG, "model={kind: huggingface, path: /nowhere}"), 2, "/nowhere is no model directory"),
    ]
    for arguments, code, words in cases:
        run = ("--run-dir", str(tmp_path / "run")) if arguments[0] == "train" else ()
        done = subprocess.run(
            command(*arguments, *run), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, words in done.stderr) == (code, True), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()
