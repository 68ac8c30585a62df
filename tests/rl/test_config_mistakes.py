"""Fifty mistakes, drawn by a seed over the shipped configs: found at once, before any process starts."""

import copy
import functools
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors.errors import ConfigError
from rl import cli
from rl.config import read_yaml
from rl.planning.knobs import dead_knobs, idle_knobs
from rl.recipes.ste_config import SteConfig
from tests.executors.shared_data import shared

ROOT = Path(__file__).parents[2]
CONFIGS = ("trice/tiny", "trice/mixture", "toolgen/tiny", "toolalpaca/tiny", "toolkengpt/tiny", "toolkengpt/kamel")
OPEN = ("call_rate", "demonstration_mix", "peers", "parts", "mix")
"""Mappings whose keys are the user's own."""
POSITIVE = (
    "steps",
    "batch_size",
    "rounds",
    "tasks_per_round",
    "width",
    "layers",
    "heads",
    "lr",
    "muon_lr",
    "max_turns",
)
POSITIVE += (
    "workers",
    "validate_every",
    "epochs",
    "count",
    "attempts",
    "temperature",
    "found",
    "instances",
    "max_tokens",
)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """On a machine without a GPU, and no cluster to join."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(ROOT)


@functools.cache
def shipped(name: str) -> dict[str, Any]:
    return read_yaml(ROOT / f"configs/{name}.yaml")


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every key path of a config with what stands there; not the user's own names."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if not path or path[-1] not in OPEN:
            yield (*path, key), value
        yield from places(value, (*path, key))


def put(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(content)
    node: Any = made
    for key in path[:-1]:
        node = node[key] if isinstance(node, list) else node.setdefault(key, {})
    node[path[-1]] = value
    return made


def misspelt(draw: random.Random, word: str) -> str:
    where = draw.randrange(len(word) - 1)
    return draw.choice(
        [
            word[:where] + word[where + 1 :],
            word[:where] + word[where + 1] + word[where] + word[where + 2 :],
            word[: where + 1] + word[where:],
            word[:where] + draw.choice("qxzjk") + word[where + 1 :],
        ]
    )


def typo(draw: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    """A key with one letter wrong; or, of things chosen by name, the name."""
    known = {path[-1] for name in CONFIGS for path, _ in places(shipped(name))}
    path, value = draw.choice([found for found in places(content) if isinstance(found[0][-1], str)])
    if path[-1] in ("kind", "recipe", "force") and draw.random() < 0.7:
        return put(content, path, misspelt(draw, value))
    wrong = misspelt(draw, path[-1])
    while wrong in known:
        wrong = misspelt(draw, path[-1])
    made = copy.deepcopy(content)
    node: Any = made
    for key in path[:-1]:
        node = node[key]
    node[wrong] = node.pop(path[-1])
    return made


def wrong_value(draw: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    """A value of another type, or out of bounds, or none where one has to be."""
    path, value = draw.choice([found for found in places(content) if found[0] != ("recipe",)])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and path[-1] in POSITIVE and draw.random() < 0.5:
        return put(content, path, draw.choice([-value, -1]))
    if number:
        return put(content, path, draw.choice(["many", True, [value], {"is": value}, None]))
    if isinstance(value, str):
        return put(content, path, draw.choice([[value], {"is": value}, 7.5]))
    return put(content, path, draw.choice([7, "many"]))


DEAD: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("cloning", "optimiser"), {"kind": "adamw", "muon_lr": 0.1}),
    (("improvement", "optimiser"), {"schedule": "constant", "floor": 0.5}),
    (("sources", 0, "top_p"), 0.5),
    (("sources", 0, "top_k"), 3),
    (("sources", 0, "count"), 3),
    (("sources", 5, "temperature"), 0.5),
    (("sources", 5, "max_tokens"), 9),
    (("sources", 5, "count"), 4),
    (("sources", 5, "force"), "call"),
    (("improvement", "objective"), {"kind": "listwise", "scale": 2.0}),
    (("improvement", "objective"), {"kind": "grpo", "length": 9}),
    (("improvement", "objective"), {"kind": "grpo", "cap": 3.0}),
    (("improvement", "objective"), {"kind": "rrhf", "length_norm": "padded", "margin": 1.0}),
    (("improvement", "objective"), {"kind": "rrhf_d", "weight": 0, "sft_weight": 0}),
    (("improvement", "refresh"), {"kind": "online", "every": 3}),
    (("few_shot",), 4),
)
IMPOSSIBLE: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("learner", "gpu"), True),
    (("learner", "workers"), 64),
    (("learner", "min_workers"), 3),
    (("learner", "strategy"), "zero2"),
    (("learner", "resources"), {"big": 1}),
    (("rollouts", "gpus"), 0.5),
    (("rollouts", "workers"), 99),
    (("rollouts", "resources"), {"far": 1}),
    (("ray",), {"num_cpus": 1}),
    (("ray",), {"object_store_mib": 10**9}),
    (("model", "adapter"), {"kind": "qlora"}),
    (("model", "heads"), 7),
    (("executor",), {"pools": {"calls": {"tools": ["calculater"]}}}),
    (("executor",), {"pools": {"calls": {"tools": ["calculator"], "count": 9}}}),
    (("executor",), {"pools": {"calls": {"tools": ["calculator"], "gpus": 1}}}),
    (("model",), {"kind": "huggingface", "path": "models/nowhere"}),
    (("tasks",), {"kind": "jsonl", "path": "nowhere.jsonl", "tools": ["calculator"]}),
    (("tasks",), {"kind": "jsonl", "path": "README.md", "tools": ["calculater"]}),
    (("sources", 2, "policy"), "lvie"),
    (("peers", "second"), {"seed": 2}),
)


def fifty() -> Iterator[tuple[str, dict[str, Any]]]:
    draw = random.Random(50)
    for number in range(34):
        name = CONFIGS[number % len(CONFIGS)] if number % 2 else "trice/tiny"
        yield name, (typo if number < 20 else wrong_value)(draw, shipped(name))
    for path, value in (*draw.sample(DEAD, 8), *draw.sample(IMPOSSIBLE, 8)):
        yield "trice/tiny", put(shipped("trice/tiny"), path, value)


def refusal(path: Path) -> str | None:
    """What the command says before anything starts; None where it finds nothing."""
    try:
        cli._load(path, [], verb=None, here=True)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", [*CONFIGS, "ste/tiny"])
def test_the_shipped_configs_have_no_mistake(name):
    assert refusal(ROOT / f"configs/{name}.yaml") is None


def test_of_fifty_mistakes_at_least_forty_eight_are_caught_before_any_process_starts(tmp_path):
    path, missed, made = tmp_path / "config.yaml", [], list(fifty())
    assert len(made) == 50
    for name, content in made:
        assert content != shipped(name)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        if refusal(path) is None:
            missed.append((name, [(k, v) for k, v in places(content) if (k, v) not in list(places(shipped(name)))]))
    assert len(missed) <= 2, missed


@pytest.mark.parametrize(("path", "value"), [*DEAD, *IMPOSSIBLE], ids=repr)
def test_every_dead_knob_and_impossible_placement_is_told_by_its_key(tmp_path, path, value):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(put(shipped("trice/tiny"), path, value), sort_keys=False))
    said = refusal(config)
    assert said is not None
    assert str(path[0]) in said or "99 rollout workers" in said


@pytest.mark.parametrize(
    ("section", "settings", "named"),
    [
        ("place", {"workers": 9}, "ray.num_cpus: 8"),
        ("place", {"gpus": 1}, "place.gpus"),
        ("place", {"resources": {"far": 1}}, "place.resources"),
        ("learner", {"gpu": True}, "learner.gpu"),
        ("learner", {"workers": 9}, "ray.num_cpus: 8"),
        ("learner", {"strategy": "zero3"}, "exploitation.learning.optimiser: muon"),
    ],
)
def test_workers_and_ranks_of_ste_that_find_no_room_are_told_by_their_key(tmp_path, section, settings, named):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(shipped("ste/tiny") | {section: settings}, sort_keys=False))
    assert named in (refusal(config) or "")
    config.write_text(yaml.safe_dump(shipped("ste/tiny") | {"ray": {"num_cpus": 2}}, sort_keys=False))
    assert "ray: nothing of this run is on Ray" in (refusal(config) or "")


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("ste/tiny", ("format", "tool_markers"), False, "exploitation.arms: tokens learns"),
        ("ste/tiny", ("format",), {"kind": "chat"}, "format.tokenizer: it is empty"),
        ("ste/tiny", ("known", "tools"), ["calculator", "calculator"], "known.tools: 'calculator' stands there twice"),
        ("ste/tiny", ("batches",), [["sqrt"], ["sqrt"]], "batches: 'sqrt' stands there twice"),
        ("ste/tiny", ("actors", 2, "temperature"), 1.0, "actors.2.temperature: the imagined call is written out"),
        ("ste/tiny", ("exploitation", "learning", "objective"), {"kind": "rrhf"}, "each example here is a single one"),
        (
            "ste/tiny",
            ("policies",),
            {"t": {"kind": "huggingface", "path": "m", "place": {"workers": 2}}},
            "policies.t.place: the workers that make the trials hold it",
        ),
        ("toolalpaca/tiny", ("learning", "objective"), {"kind": "dpo"}, "each example here is a single one"),
        ("toolalpaca/tiny", ("corpus", "entries"), "README.md", "corpus.entries: README.md is not JSON"),
        ("toolalpaca/tiny", ("corpus", "held_out"), 5000, "corpus.apis: 50 and 5000 held out are 5050"),
        ("toolalpaca/tiny", ("corpus", "writers"), {"temperature": 0.5}, "corpus.writers.temperature: a script writes"),
        ("toolalpaca/tiny", ("learner",), {"gpu": True}, "learner.gpu: the run takes 1 GPUs"),
        ("toolkengpt/tiny", ("template",), "Q: A:", "template: it has no [QUESTION]"),
        ("toolkengpt/virtualhome", ("shots",), 2, "shots: VirtualHome's prompts have worked plans of their own"),
        ("trice/tiny", ("format",), {"kind": "chat"}, "format.tokenizer: it is empty"),
        ("trice/tiny", ("storage",), "README.md", "storage: no folder README.md can be made"),
    ],
)
def test_what_would_fail_after_a_stage_or_never_be_noticed_is_told_at_once(tmp_path, name, path, value, told):
    shared("toolalpaca")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(put(shipped(name), path, value)))
    assert told in (refusal(config) or "")


def test_settings_of_arms_that_are_left_out_are_told_by_the_plan_alone():
    content = put(shipped("ste/tiny"), ("exploitation", "arms"), ["ft"])
    config = SteConfig.model_validate(put(content, ("batches",), []))
    assert not idle_knobs(config)
    assert [told.partition(":")[0] for told in dead_knobs(config)] == ["exploitation.documented", "exploitation.rounds"]


def test_all_mistakes_are_told_at_once_those_that_a_typo_hid_too(tmp_path):
    content = shipped("trice/tiny")
    content["improvement"]["rouns"] = content["improvement"].pop("rounds")
    content["learner"] = {"workers": 64, "gpu": True}
    content["sources"][0]["policy"] = "liv"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    said = refusal(path)
    assert said is not None
    assert "3 mistakes" in said and "'improvement.rouns'; did you mean 'rounds'?" in said
    assert "learner.workers: 64 ranks cannot share a batch of 16" in said


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text((ROOT / "configs/trice/tiny.yaml").read_text() + "\nseed: 3\n")
    assert "the key 'seed' is there already" in (refusal(path) or "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "configs/trice/tiny.yaml", "improvement.rouns=3"],
        ["train", "configs/trice/tiny.yaml", "learner.gpu=true", "--run-dir", "never"],
        ["train", "configs/toolgen/tiny.yaml", "memorisation.steps=-1", "--run-dir", "never"],
        ["plan", "configs/trice/mixture.yaml", "model.layers=two"],
    ],
)
def test_the_command_says_so_in_under_two_seconds_and_leaves_nothing(tmp_path, arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [str(tmp_path / part) if part == "never" else part for part in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "rl", *arguments], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: configs/") and "Traceback" not in done.stderr
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 2
    assert not (tmp_path / "never").exists()


def test_a_config_is_checked_without_tensors_or_ray():
    told = "import sys; from pathlib import Path; from rl import cli; "
    told += "[cli._load(Path(f'configs/{name}/tiny.yaml'), [], verb=None, here=True) "
    told += "for name in ('trice', 'toolgen', 'toolalpaca', 'toolkengpt', 'ste')]; "
    told += "print(sorted({'torch', 'ray', 'transformers', 'peft', 'trl', 'datasets', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
