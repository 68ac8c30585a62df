import pytest

from executors.errors import ConfigError
from rl.config import override, read_yaml, validate
from rl.recipes.prepared import prepare
from rl.recipes.trice import TriceConfig


def content(**changes):
    base = {
        "recipe": "trice",
        "name": "x",
        "cloning": {"steps": 10},
        "sources": [{"name": "gold", "policy": "gold"}],
        "improvement": {"rounds": 1, "tasks_per_round": 8, "batch_size": 4},
    }
    return base | changes


def problem(made) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(made, TriceConfig, "x.yaml")
    return str(caught.value)


def test_a_misspelt_key_is_named_with_the_nearest_valid_one():
    assert problem(content(seeed=1)) == "x.yaml: unknown key 'seeed'; did you mean 'seed'?"
    made = content(improvement={"rounds": 1, "tasks_per_round": 8, "batch_siz": 4, "batch_size": 4})
    assert "unknown key 'improvement.batch_siz'; did you mean 'batch_size'?" in problem(made)


def test_a_key_that_the_chosen_objective_does_not_read_is_an_error():
    made = content()
    made["improvement"]["objective"] = {"kind": "rrhf", "decision_weight": 8}
    assert "unknown key 'improvement.objective.decision_weight'" in problem(made)
    made["improvement"]["objective"] = {"kind": "rrhf_e"}
    assert "improvement.objective: no kind 'rrhf_e'; there are 'sft', 'rrhf', 'rrhf_d'" in problem(made)


def test_a_section_that_does_not_say_its_kind_is_told_which_there_are():
    assert "model: 'kind' is missing; there are tiny, huggingface, as in model.kind=" in problem(
        content(model={"max_length": 64})
    )


def test_a_key_in_a_list_is_found_too():
    made = content(sources=[{"name": "gold", "policy": "gold", "temprature": 1}])
    assert "unknown key 'sources.0.temprature'; did you mean 'temperature'?" in problem(made)


def test_missing_and_wrong_values_are_told_with_what_was_there():
    made = content(cloning={"steps": -3})
    del made["sources"]
    text = problem(made)
    assert "'sources' is missing" in text
    assert "cloning.steps: input should be greater than 0, got -3" in text


def test_contradictions_are_found():
    double = [{"name": "a", "policy": "live"}, {"name": "a", "policy": "gold"}]
    assert "two are named 'a'" in problem(content(sources=double))
    assert "64 ranks cannot share a batch of 4" in problem(content(learner={"workers": 64}))
    assert "width 97 is no multiple of heads 4" in problem(content(model={"kind": "tiny", "width": 97}))


def test_overrides_reach_into_mappings_and_lists():
    made = override(content(), ["improvement.rounds=7", "sources.0.count=3", "rewards.match=exact"])
    assert made["improvement"]["rounds"] == 7
    assert made["sources"][0]["count"] == 3
    assert made["rewards"] == {"match": "exact"}
    with pytest.raises(ConfigError, match="has no '='"):
        override(content(), ["improvement.rounds"])
    with pytest.raises(ConfigError, match="leads nowhere"):
        override(content(), ["sources.7.count=3"])


def test_a_missing_file_is_answered_with_the_nearest_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean configs/trice/tiny.yaml"):
        read_yaml(tmp_path / "configs/trice/tinny.yaml")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="holds a list"):
        read_yaml(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        read_yaml(path)


@pytest.mark.parametrize("name", ["tiny", "mixture", "full", "ste_pool", "gsm8k_pool"])
def test_the_shipped_configs_are_valid(name):
    from pathlib import Path

    path = Path(__file__).parents[2] / f"configs/trice/{name}.yaml"
    validate(read_yaml(path), TriceConfig, str(path))


def test_names_that_nothing_reads_are_errors():
    peers = {"peer": {"seed": 1}}
    assert "no source plays 'peer'" in problem(content(peers=peers))
    rate = {"steps": 5, "demonstrator": {"call_rate": {"easy": 7.5}}}
    assert "call_rate.easy: input should be less than or equal to 1" in problem(content(cloning=rate))


def test_more_processes_than_ray_may_hand_out_are_an_error_not_a_wait():
    assert "ray.num_cpus: 8 are too few for 1 ranks, 8 rollout workers" in problem(content(rollouts={"workers": 8}))


def test_what_the_data_cannot_do_is_found_before_anything_starts():
    tasks = {"kind": "arithmetic", "demonstrations": 50, "train": 20, "validation": 5, "test": 5}

    def prepared(**changes):
        with pytest.raises(ConfigError) as caught:
            prepare(validate(content(tasks=tasks, **changes), TriceConfig, "x.yaml"))
        return str(caught.value)

    rate = {"steps": 5, "demonstrator": {"call_rate": {"esy": 0.5}}}
    assert "names level 'esy', and the tasks have easy, hard, mid, two" in prepared(cloning=rate)
    assert "plays policy 'peeer'" in prepared(sources=[{"name": "a", "policy": "peeer"}])
    assert "no source plays a recording" in prepared(evaluation={"kind": "ranking"})
    worth = prepared(evaluation={"kind": "environment"}, rewards={"kind": "weighted", "environment": 1.0})
    assert "evaluation: kind environment, and of the tools (calculator) none has an environment" in worth
    assert "rewards.environment: 1, and of the tools" in worth and "take kind selectivity" in worth
    many = {"rounds": 1, "tasks_per_round": 64, "batch_size": 4}
    assert "tasks_per_round is 64, and there are 20" in prepared(improvement=many)
