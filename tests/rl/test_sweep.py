"""Grids of runs, and the table that comes of them."""

import json

import pytest
import yaml

from executors.errors import ConfigError
from rl import remote as cluster_of
from rl.evaluation.evaluate import Calls, PairRanking, Selectivity
from rl.sweep.grid import Grid, Job, jobs, markdown, measure_of, missing, read_grid, rows, write_table
from rl.sweep.remote import run_jobs
from rollouts.store import Log
from rollouts.types import Group
from tests.rl.test_evaluation import GROUPS

GRID = Grid(
    name="small",
    base="configs/trice/tiny.yaml",
    seeds=[0, 1],
    against="ranked",
    arms={
        "start": {"of": "ranked", "state": "start"},
        "always call": {"of": "ranked", "state": "always_call"},
        "ranked": {},
        "cloned": {"overrides": ["improvement.rounds=1"]},
    },
    figures=["accuracy", "call_rate"],
)


def finish(job: Job, final: list[Group]) -> None:
    """What a finished run leaves."""
    for name, groups in (("start", GROUPS), ("final", final)):
        path = job.folder / "evaluation" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        Log(path, Group).append(groups)
    (job.folder / "evaluation" / "summary.json").write_text("{}")


def test_a_grid_runs_every_arm_of_a_seed_before_the_next_seed(tmp_path):
    made = jobs(GRID, tmp_path)
    assert [(job.arm, job.seed) for job in made] == [("ranked", 0), ("cloned", 0), ("ranked", 1), ("cloned", 1)]
    assert made[1].arguments() == [
        "train",
        "configs/trice/tiny.yaml",
        "improvement.rounds=1",
        "seed=0",
        "--run-dir",
        str(tmp_path / "cloned-seed0"),
    ]


def test_a_run_that_was_stopped_goes_on_and_one_that_is_done_is_known(tmp_path):
    job = jobs(GRID, tmp_path)[0]
    job.folder.mkdir()
    (job.folder / "config.resolved.yaml").write_text("{}")
    assert job.arguments()[-1] == "--resume"
    assert not job.done
    finish(job, GROUPS)
    assert job.done


def test_the_table_has_each_arms_mean_over_the_seeds_and_what_it_has_over_another(tmp_path):
    for job in jobs(GRID, tmp_path):
        finish(job, GROUPS if job.arm == "ranked" else [GROUPS[0]] * 4)
    made = rows(GRID, tmp_path, Selectivity())
    assert [(row.arm, row.seeds) for row in made] == [
        ("start", 2),
        ("always call", 2),
        ("ranked", 2),
        ("cloned", 2),
    ]
    assert [row.figures["accuracy"].value for row in made] == [0.75, 1.0, 0.75, 1.0]
    assert made[3].change is not None
    assert made[3].change["call_rate"].value == pytest.approx(0.5)
    assert made[2].change is None
    text = markdown(GRID, made)
    assert "| cloned | 2 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |" in text
    assert "| over ranked |" in text
    assert write_table(GRID, tmp_path, made).read_text() == text
    assert json.loads((tmp_path / "sweep.json").read_text())["start"]["figures"]["accuracy"]["value"] == 0.75


def test_seeds_that_are_not_done_are_left_out_of_the_table(tmp_path):
    finish(jobs(GRID, tmp_path)[0], GROUPS)
    made = rows(GRID, tmp_path, Selectivity())
    assert [(row.arm, row.seeds) for row in made] == [("start", 1), ("always call", 1), ("ranked", 1)]
    assert rows(GRID, tmp_path / "none", Selectivity()) == []


def test_where_the_last_policy_is_the_best_its_state_is_the_final_one(tmp_path):
    last = GRID.arms["start"].model_copy(update={"state": "last"})
    grid = GRID.model_copy(update={"arms": GRID.arms | {"newest": last}})
    for job in jobs(grid, tmp_path):
        finish(job, GROUPS)
    assert missing(grid, tmp_path, Selectivity()) == []
    (row,) = [row for row in rows(grid, tmp_path, Selectivity()) if row.arm == "newest"]
    assert row.seeds == 2 and row.figures["accuracy"].value == 0.75


def test_a_state_that_no_run_has_is_named(tmp_path):
    grid = GRID.model_copy(update={"arms": GRID.arms | {"odd": GRID.arms["start"].model_copy(update={"state": "odd"})}})
    finish(jobs(grid, tmp_path)[0], GROUPS)
    (line,) = missing(grid, tmp_path, Selectivity())
    assert line.startswith("ranked-seed0 has no state 'odd': start, always_call")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["seeds=[0, 0]"], "must be distinct"),
        (["against=nobody"], "there is no arm 'nobody'; there are ranked"),
        (["arms.start={of: nobody}"], "arms.start: 'nobody' is no arm that runs; name one of ranked"),
        (["arms.start={of: ranked, overrides: [a=1]}"], "leave overrides and base out"),
        (["arm=3"], "unknown key 'arm'; did you mean 'arms'"),
    ],
)
def test_a_grid_that_cannot_work_is_refused_with_the_reason(tmp_path, changes, message):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"name": "g", "base": "b.yaml", "arms": {"ranked": {}}}))
    assert read_grid(path).running == ["ranked"]
    with pytest.raises(ConfigError, match=message):
        read_grid(path, changes)


def test_arms_that_are_measured_in_different_ways_are_refused():
    assert measure_of({"a": Selectivity(), "b": Selectivity()}) == Selectivity()
    with pytest.raises(ConfigError, match="arms 'a' and 'b' have different evaluations"):
        measure_of({"a": Selectivity(), "b": Calls()})
    with pytest.raises(ConfigError, match="keeps no attempts to compare"):
        measure_of({"a": PairRanking()})


@pytest.mark.ray
def test_a_run_that_fails_is_told_with_its_last_words_and_the_others_go_on(tmp_path):
    config = tmp_path / "broken.yaml"
    config.write_text("recipe: trice\nname: x\nstepz: 3\n")
    made = [Job("a", seed, str(config), (), tmp_path / f"a-seed{seed}") for seed in (0, 1)]
    finish(made[0], GROUPS)  # is not run again
    noticed = []
    cluster = cluster_of.start_local(num_cpus=2, object_store_mib=80)
    try:
        failed = run_jobs(made, cluster.address, noticed.append, parallel=2)
    finally:
        cluster.stop()
    assert [(outcome.job.seed, outcome.code) for outcome in failed] == [(1, 2)]
    assert "unknown key 'stepz'" in failed[0].said
    assert noticed == failed
