import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from rewards.types import Candidate, RankedGroup, Reward
from rl.cli import app
from rl.data.rounds import EPISODES, GROUPS, LEDGER, RoundGroup, Rounds
from rl.evaluation.verify import verify
from rl.learner import checkpoint
from rl.models.tiny import build_model, build_tokenizer
from rl.run import Run
from rollouts.policy import Source
from rollouts.store import Log
from rollouts.types import Episode, Group, Task

TASKS = [Task(id=f"t{number}", prompt="?", answer="1") for number in range(4)]
SOURCES = [Source(name="own", policy="live")]


def played(task: Task, stop: str = "answer") -> Episode:
    return Episode(
        id=f"improve/0/{task.id}/own/0", task_id=task.id, source="own", policy="live", version=0, turns=(), answer="1",
        stop=stop,
    )  # fmt: skip


def judge(group: Group) -> RankedGroup:
    return RankedGroup(group.task, tuple(Candidate(episode, Reward(1)) for episode in group.episodes))


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of two steps, as it is after its last checkpoint."""
    run = Run.start(tmp_path / "run", config_text="", resolved={"name": "run"}, resume=False)
    rounds = Rounds(run.path)
    records = rounds.complete(
        0, 0, TASKS, SOURCES, lambda tasks, _: [[Group(task, (played(task),))] for task in tasks], judge
    )
    rounds.plan({0: ["t0", "t1"], 1: ["t2", "t3"]}, records)
    tokenizer = build_tokenizer(["a"], vocab_size=300)
    checkpoint.save(run.folder("checkpoints"), 2, build_model(300), tokenizer, {"stage": None})
    rounds.ledger.covered(2)
    rounds.close()
    for step in range(2):
        run.log({"stage": "improve", "step": step, "cpu_seconds": 0.1})
    return run


def breaches(run: Run) -> dict[str, str]:
    return {finding.promise: finding.detail for finding in verify(run) if not finding.kept}


def test_a_sound_run_keeps_every_promise_and_says_of_how_much(run):
    assert breaches(run) == {}
    done = CliRunner().invoke(app, ["verify", str(run.path)])
    assert done.exit_code == 0
    assert "every attempt is learned from at most once: 4 attempts learned from" in done.stdout
    assert len(done.stdout.splitlines()) == 8


def test_a_lost_episode_and_a_double_one_are_found(run):
    lines = (run.path / EPISODES).read_text().splitlines(keepends=True)
    (run.path / EPISODES).write_text("".join([*lines[1:], lines[-1]]))
    detail = breaches(run)["every acknowledged episode is in the log once"]
    assert "improve/0/t0/own/0 is trained and not in the log" in detail
    assert "improve/0/t3/own/0 is in the log 2 times" in detail


def test_a_flipped_byte_is_found(run):
    content = (run.path / GROUPS).read_bytes()
    (run.path / GROUPS).write_bytes(content.replace(b'"t1"', b'"t7"', 1))
    assert "improve.jsonl:2 is damaged" in breaches(run)["every line has its checksum"]


def test_a_torn_last_line_is_told_and_broken_only_where_it_was_acknowledged(run):
    with (run.path / GROUPS).open("ab") as file:
        file.write(b'{"round": 1')
    assert breaches(run) == {}
    assert verify(run)[1].detail == "8 lines; a crash cut improve.jsonl:5 in groups/"
    whole = (run.path / GROUPS).read_bytes()
    (run.path / GROUPS).write_bytes(whole[: whole.rindex(b"\n")])
    found = breaches(run)
    assert found == {
        "every acknowledged episode is in the log once": "improve/0/t3 is trained and not among the ranked groups"
    }


def test_a_group_that_was_ranked_twice_is_found(run):
    lines = (run.path / GROUPS).read_text().splitlines(keepends=True)
    (run.path / GROUPS).write_text("".join([*lines, lines[0]]))
    assert breaches(run) == {"every acknowledged episode is in the log once": "improve/0/t0 was ranked 2 times"}


def test_a_ledger_that_is_missing_or_damaged_is_found(run):
    content = (run.path / LEDGER).read_bytes()
    for left in run.path.glob("ledger.sqlite*"):
        left.unlink()
    promise = "every acknowledged episode is in the log once"
    assert "there is no ledger.sqlite" in breaches(run)[promise]
    (run.path / LEDGER).write_bytes(b"")
    assert "improve/0/t0/own/0 is in the log and unknown to the ledger" in breaches(run)[promise]
    for damaged in (b"no ledger" * 1000, content[:4096] + bytes(len(content) - 4096)):
        (run.path / LEDGER).write_bytes(damaged)
        assert "ledger.sqlite cannot be" in breaches(run)[promise]
        assert CliRunner().invoke(app, ["verify", str(run.path), "--json"]).exit_code == 3


def test_metrics_that_are_damaged_leave_a_gap_and_no_crash(run):
    lines = (run.path / "metrics.jsonl").read_bytes().splitlines()
    (run.path / "metrics.jsonl").write_bytes(b"\n".join([lines[0], b"[1]", b"7", b'{"st\xff' + lines[1]]))
    assert breaches(run) == {"every step up to the newest checkpoint was taken": "step 1 has no record"}


def test_a_step_beyond_the_newest_checkpoint_is_not_learned_from(run):
    with_two = run.path / "checkpoints" / "step-2"
    with_two.rename(with_two.with_name("step-1"))
    assert "step 1" in breaches(run)["every attempt is learned from at most once"]


def test_a_torn_checkpoint_a_gap_and_leftovers_are_found(run):
    (run.path / "checkpoints" / ".step-9.1").mkdir()
    (run.path / EPISODES).with_name(".improve.00000.parquet.17").touch()
    (run.path / "metrics.jsonl").write_text('{"stage": "improve", "step": 0, "cpu_seconds": 0.1}\n{"stage": "impr')
    found = breaches(run)
    assert found["every step up to the newest checkpoint was taken"] == "step 1 has no record"
    assert found["nobody's half-written files are left"] == (
        "checkpoints/.step-9.1; episodes/.improve.00000.parquet.17"
    )
    (run.path / "checkpoints" / "step-2" / "config.json").write_text("{}")
    assert breaches(run)["every checkpoint is whole"].startswith("step-2: config.json has 2 bytes instead of")


def test_a_failure_of_the_infrastructure_that_was_ranked_is_found(run):
    with Log(run.path / GROUPS, RoundGroup) as log:
        group = RankedGroup(TASKS[0], (Candidate(played(TASKS[0], "failed"), Reward(0.0)),))
        log.append([RoundGroup(1, 0, group)])
    assert "did not finish and was ranked" in breaches(run)["no failure of the infrastructure was ranked"]


def test_weights_that_are_not_finite_are_found(run):
    path = run.path / "checkpoints" / "step-2" / "model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    assert breaches(run)["all weights are finite"] == f"step-2: {name} is not finite"
    done = CliRunner().invoke(app, ["verify", str(run.path), "--json"])
    assert done.exit_code == 3
    kept = [json.loads(line)["kept"] for line in done.stdout.splitlines()]
    assert not kept[3] and not kept[7]
