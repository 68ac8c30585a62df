"""What a config would take, told before anything is started."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from rl.cli import app
from rl.config import override, read_yaml, validate
from rl.models.load import HuggingFaceModel, TinyModel
from rl.models.lora import Adapter
from rl.models.tiny import build_model
from rl.planning.knobs import dead_knobs
from rl.planning.placement import processes
from rl.planning.plan import plan
from rl.planning.size import size_of
from rl.recipes.registry import any_config_class
from rl.recipes.trice import TriceConfig
from tests.executors.endpoints import endpoint

TINY = Path("configs/trice/tiny.yaml")


def config(*changes: str) -> TriceConfig:
    return validate(override(read_yaml(TINY), changes), TriceConfig, "test")


def test_the_size_of_a_model_that_is_built_here_is_that_of_the_model():
    size = size_of(TinyModel(width=32, layers=3, heads=4, vocab_size=300))
    built = build_model(300, width=32, layers=3, heads=4, max_length=128)
    assert size is not None
    assert size.parameters == size.trained == sum(one.numel() for one in built.parameters())
    assert (size.layers, size.width) == (3, 32)


def test_the_size_of_a_directory_is_read_from_its_config_alone_and_adapters_are_counted(tmp_path):
    shape = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    (tmp_path / "config.json").write_text(json.dumps(shape.to_dict() | {"architectures": ["LlamaForCausalLM"]}))
    adapter = Adapter(r=4, target_modules=["q_proj", "v_proj"])
    size = size_of(HuggingFaceModel(path=str(tmp_path), adapter=adapter))
    assert size is not None
    assert size.parameters == sum(one.numel() for one in LlamaForCausalLM(shape).parameters())
    assert size.trained == 2 * 2 * 4 * (64 + 64)


def test_a_model_that_is_elsewhere_is_judged_by_its_name():
    size = size_of(HuggingFaceModel(path="/models/Some-7.5B-Instruct", adapter=Adapter(r=8)))
    assert size is not None
    assert size.parameters == 7_500_000_000
    assert 5e6 < size.trained < 5e7
    assert "not on this machine" in size.origin
    assert size_of(HuggingFaceModel(path="/models/mystery")) is None


def test_a_plan_counts_what_the_run_will_do():
    lines = "\n".join(plan(config()))
    assert "clone      1,400 steps of 32: 44,800 examples" in lines
    assert "46 rounds of 96 tasks by 8 attempts: 35,328 episodes, 276 steps" in lines
    assert "validate   12 checkpoints" in lines
    assert "4 CPUs, 0 GPUs" in lines


def test_ranks_that_share_a_model_out_hold_less_each():
    gpu = ["learner.gpu=true", "learner.workers=4", "ray.num_cpus=16", "model={kind: huggingface, path: /m/8B}"]
    adamw = [f"{stage}.optimiser={{kind: adamw}}" for stage in ("cloning", "improvement")]
    held = {}
    for strategy in ("ddp", "zero2", "zero3"):
        one = config(*gpu, *adamw, f"learner.strategy={strategy}")
        size = size_of(one.model)
        assert size is not None
        held[strategy] = next(kind for kind in processes(one, size) if kind.name == "learner rank").memory
    assert held["ddp"] > held["zero2"] > held["zero3"]
    assert held["ddp"] - held["zero3"] == pytest.approx(8e9 * 16 * 3 / 4)


def test_a_plan_bounds_what_an_endpoint_may_cost():
    policy = {
        "kind": "endpoint",
        "base_url": "http://127.0.0.1:9/v1",
        "model": "m",
        "prompt_price": 1.0,
        "completion_price": 10.0,
    }
    changes = [f"policies={yaml.safe_dump({'teacher': policy}, default_flow_style=True)}", "sources.5.policy=teacher"]
    (line,) = [line for line in plan(config(*changes)) if line.startswith("endpoint")]
    requests = 46 * 96 * 3
    assert f"at most {requests:,} requests" in line
    assert f"${(requests * 128 * 1.0 + requests * 48 * 10.0) / 1e6:,.2f}" in line
    shown = [changes[0].replace("model: m", "mode: text, model: m"), changes[1], "sources.5.shots=2"]
    (line,) = [line for line in plan(config(*shown)) if line.startswith("endpoint")]
    assert f"${(requests * 3 * 128 * 1.0 + requests * 48 * 10.0) / 1e6:,.2f}" in line


def test_a_plan_tells_the_foundation_and_what_the_teacher_of_stage_1_is_asked(tmp_path):
    teacher = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "prompt_price": 2.0}
    cloning = {
        "steps": 10,
        "foundation": {"steps": 20},
        "demonstrator": {"kind": "own_answers", "teacher": "teacher", "attempts": 2, "max_tokens": 32},
    }
    changes = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True)}"
        for key, value in {"policies": {"teacher": teacher}, "cloning": cloning, "peers": {}}.items()
    ]
    changes += ["sources=[{name: gold, policy: gold}]", "tasks.demonstrations=500", "rollouts.max_turns=2"]
    lines = list(plan(config(*changes)))
    assert "foundation 20 steps of 32: 640 examples" in lines
    assert any(line.startswith("ask        at most 500 questions") and "2 tries" in line for line in lines)
    (line,) = [line for line in lines if line.startswith("endpoint")]
    assert "at most 2,000 requests (64,000 tokens written) in stage 1 to" in line
    assert f"at most ${2000 * 128 * 2.0 / 1e6:,.2f}" in line

    (tmp_path / "tasks.jsonl").write_text('{"prompt": "1 + 1?", "answer": "2"}\n' * 7)
    here, away = (f"tasks={{kind: jsonl, path: {tmp_path / name}}}" for name in ("tasks.jsonl", "none.jsonl"))
    told = {name: "\n".join(plan(config(*changes[:-2], name, changes[-1]))) for name in (here, away)}
    assert "at most 7 questions" in told[here] and "at most 28 requests" in told[here]
    assert "every question" in told[away] and "at most 4 requests (128 tokens written) for each question" in told[away]


@pytest.mark.parametrize(
    ("changes", "knob"),
    [
        (["cloning.optimiser={kind: adamw, muon_lr: 0.1}"], "cloning.optimiser.muon_lr"),
        (["improvement.optimiser={schedule: constant, floor: 0.5}"], "improvement.optimiser.floor"),
        (["sources.0.top_p=0.5"], "sources.0 (forced-direct).top_p: at temperature 0"),
        (["sources.0.count=2"], "sources.0 (forced-direct).count: 2 greedy attempts"),
        (["sources.5.temperature=0.5"], "sources.5 (gold).temperature: the gold attempt is written out"),
        (["improvement.validate_every=99"], "improvement.validate_every: 99 is more than the 46 rounds"),
    ],
)
def test_a_setting_that_nothing_reads_is_named(changes, knob):
    (found,) = dead_knobs(config(*changes))
    assert found.startswith(knob)
    assert any(line.startswith("unread") for line in plan(config(*changes)))


def test_the_settings_of_the_demo_are_all_read():
    assert dead_knobs(config()) == []


def test_an_object_store_that_is_too_small_for_the_weights_is_warned_of():
    lines = list(plan(config("model={kind: huggingface, path: /m/8B}")))
    assert any(line.startswith("warning    ray.object_store_mib: three versions") for line in lines)


def planned(path: str, *changes: str) -> str:
    content = override(read_yaml(Path(path)), changes)
    return "\n".join(plan(validate(content, any_config_class(content["recipe"], path), path)))


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*/*.yaml")), ids=str)
def test_every_shipped_config_of_a_run_can_be_planned(path):
    if "recipe" not in read_yaml(path):
        pytest.skip("a grid: 'apprentice sweep' takes it")
    lines = planned(str(path))
    assert "model  " in lines and "processes" in lines
    assert "unread" not in lines


def test_the_plan_of_a_corpus_tells_its_fits_its_ranks_and_what_writing_it_asks_of_a_model():
    small = ["corpus.apis=6", "corpus.held_out=2", "corpus.instances=30", "corpus.test_requests=3"]
    tiny = planned("configs/toolalpaca/tiny.yaml", *small, "learning.steps=50", "learning.batch_size=4")
    assert "8 APIs by a script, 2 of them held out; 30 requests by a script, attempts at them by a script" in tiny
    assert "learn      50 steps of 4: 200 attempts" in tiny
    assert "measure    6 requests to held-out APIs, 2 times" in tiny
    assert "endpoint" not in tiny and "learner rank" not in tiny
    improved = planned("configs/toolalpaca/tiny.yaml", "improvement={rounds: 3, requests: 16, attempts: 4, steps: 20}")
    assert "3 rounds of 16 requests by 4 attempts: 192 attempts" in improved and "60 steps of 8" in improved
    full = planned("configs/toolalpaca/full.yaml", *small, "corpus.writers={apis: teacher}")
    assert f"at most {3 * 8 * 5 * 4} requests (apis {3 * 8 * 5 * 4}), {3 * 8 * 5 * 4 * 2000 / 1000:g}k tokens" in full
    assert "never more than $100" in full
    (ranks,) = [line for line in full.splitlines() if "learner rank" in line]
    assert ranks.split()[2:5] == ["2", "0", "1"]


def test_the_plan_of_exploring_counts_tools_trials_and_what_each_part_asks_of_a_model():
    endpoint = {"kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "completion_price": 2.0}
    policies = yaml.safe_dump({"teacher": endpoint}, default_flow_style=True)
    changes = [f"policies={policies}", "judge=teacher", "ablations=[]", "exploration.max_usd=3"]
    small = [*changes, "exploration.episodes=2", "exploration.trials=3"]
    told = planned("configs/ste/tiny.yaml", *small, "exploitation.arms=[ft]")
    assert "12 tools in 24 sittings: at most 72 trials of 3 attempts; it ends at $3" in told
    assert f"at most {2 * 72 * 3} requests (verdicts {2 * 72 * 3})" in told
    assert f"at most ${2 * 72 * 3 * 512 * 2 / 1e6:,.2f}" in told and "never more than $3" in told
    assert "trial worker" not in told
    again = planned("configs/ste/tiny.yaml", *small, "ablations=[execution]")
    assert "documented 440 steps of 32" in again
    assert f"(verdicts {2 * 2 * 72 * 3})" in again  # documentation is read without a judge, at a budget of its own
    assert "each of these 3 ends at $3" in again and "never more than $9" in again
    plain = planned("configs/ste/tiny.yaml", "batches=[]", "ablations=[]", "exploitation.arms=[icl, ft]", "test=2")
    assert (
        f"{20 * 2} held-out queries 3 times, as many for validation 2 times: at most {5 * 40 * 64 / 1000:g}k" in plain
    )
    rounds = planned("configs/ste/tiny.yaml", "batches=[[sqrt]]", "ablations=[]", "exploitation.arms=[ft]", "test=2")
    assert "40 held-out queries 6 times, as many for validation 6 times" in rounds  # twice two rounds, with both
    placed = planned("configs/ste/tiny.yaml", "place={workers: 3, cpus: 2}", "ray.num_cpus=6")
    (workers,) = [line for line in placed.splitlines() if "trial worker" in line]
    assert workers.split()[2:5] == ["3", "2", "0"]


def test_the_plan_of_exploring_bounds_what_is_asked_where_attempts_are_drawn_again(tmp_path):
    called = 'Thought: so.\nAction: sqrt\nAction Input: {"numbers": [-1]}\nObservation:'
    with endpoint(called) as served:
        teacher = {"kind": "endpoint", "base_url": served.url, "model": "m", "mode": "text"}
        content = {
            "recipe": "ste",
            "name": "asked",
            "tools": [{"executors.tools.operations:operation_tools": {"names": ["sqrt"]}}],
            "policies": {"teacher": teacher},
            "actors": [{"policy": "teacher"}, {"policy": "teacher", "temperature": 1.0}],
            "exploration": {"episodes": 2, "trials": 1, "max_turns": 1, "focus": 0},
        }
        path = tmp_path / "ste.yaml"
        path.write_text(json.dumps(content))
        done = CliRunner().invoke(app, ["explore", str(path), "--run-dir", str(tmp_path / "run")])
        assert done.exit_code == 0, done.output
    assert len(served.asked) == 8 and "(attempts 8)" in planned(str(path), "exploitation.arms=[ft]")


def test_tools_that_are_not_here_leave_the_rest_of_a_plan():
    gone = "tools=[calculator, {executors.tools.ste:ste_tools: {path: /nowhere/ste}}]"
    told = planned("configs/ste/tiny.yaml", gone)
    assert "the tools cannot be counted here" in told and "ranked     300 steps" in told


def test_the_plan_of_learned_rows_counts_the_workers_that_hold_places():
    told = planned("configs/toolkengpt/tiny.yaml", "head_workers=3")
    (held,) = [line for line in told.splitlines() if "holder of places" in line]
    assert held.split()[3:6] == ["3", "1", "0"]
    assert "on 3 Ray workers" in told
    assert "rankings" in planned("configs/toolgen/tiny.yaml")
    assert "rankings" not in planned("configs/toolgen/tiny.yaml", "feedback=null")
