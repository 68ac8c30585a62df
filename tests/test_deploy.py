"""What is under deploy/: manifests that KubeRay takes, of this project's versions, and a dashboard of real metrics."""

import ast
import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CLUSTER_KEYS = {
    "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs",
}  # fmt: skip
JOB_KEYS = {
    "submissionMode", "entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "activeDeadlineSeconds",
    "rayClusterSpec",
}  # fmt: skip
WORKER_KEYS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def clusters() -> list[dict[str, Any]]:
    return [manifest("raycluster.yaml")["spec"], manifest("rayjob.yaml")["spec"]["rayClusterSpec"]]


def pinned(package: str) -> str:
    (found,) = re.findall(rf"^{package}==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return found


def test_the_manifests_have_kuberays_kinds_and_keys():
    cluster, job = manifest("raycluster.yaml"), manifest("rayjob.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == (job["apiVersion"], "RayCluster") == ("ray.io/v1", "RayCluster")
    assert job["kind"] == "RayJob"
    assert set(job["spec"]) <= JOB_KEYS
    for spec in clusters():
        assert set(spec) <= CLUSTER_KEYS
        assert set(spec["headGroupSpec"]) == {"rayStartParams", "template"}
        for group in spec["workerGroupSpecs"]:
            assert set(group) == WORKER_KEYS
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_every_node_has_the_projects_image_ray_a_token_and_the_runs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = f"{project['name']}:{project['version']}"
    assert f"--tag {image} " in (DEPLOY / "Dockerfile").read_text()
    claim = manifest("runs-volume.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for spec in clusters():
        assert spec["rayVersion"] == pinned("ray")
        assert spec["authOptions"] == {"mode": "token"}
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            assert container["image"] == image
            assert container["resources"]["limits"] == container["resources"]["requests"]
            (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
            assert mount["name"] == volume["name"]
            assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_job_runs_the_command_on_a_config_of_the_image_and_writes_to_the_volume():
    from rl.cli import app

    program, verb, config, *options = shlex.split(manifest("rayjob.yaml")["spec"]["entrypoint"])
    assert program == "apprentice"
    command: Any = typer.main.get_command(app)
    known = {name for parameter in command.commands[verb].params for name in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    docker = (DEPLOY / "Dockerfile").read_text()
    home = re.findall(r"^WORKDIR (.*)$", docker, re.MULTILINE)[0]
    assert (ROOT / Path(config).relative_to(home)).is_file()
    assert options[options.index("--run-dir") + 1].startswith("/runs/")


def test_what_the_image_copies_is_there():
    for line in re.findall(r"^COPY (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = (DEPLOY / "Dockerfile").read_text()
    assert all(f"COPY {package.rstrip('*')} " in copied for package in packages)


@pytest.fixture(scope="module")
def grafana() -> Any:
    spec: Any = importlib.util.spec_from_file_location("grafana_panels", DEPLOY / "grafana.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_dashboard_is_what_its_script_writes(grafana):
    assert (DEPLOY / "grafana.json").read_text() == grafana.text()


def exported() -> set[str]:
    """The names of the metrics that the code makes, as they stand there."""
    found = set()
    for path in [*ROOT.glob("rl/**/*.py"), *ROOT.glob("rollouts/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                name, first = node.func.id, node.args[0]
                if name in ("Counter", "Gauge", "Histogram") and isinstance(first, ast.Constant):
                    found |= {f"{first.value}_total"} if name == "Counter" else {str(first.value)}
    return found


def of_a_step() -> set[str]:
    """What the learner tells of a step, as gauges are called after it."""
    from rl.learner.learner import Learner, Stage
    from rl.learner.optimiser import OptimiserConfig
    from rl.losses.objective import RrhfD
    from rl.models.tiny import build_model
    from tests.rl.test_learner import some_examples

    learner = Learner(build_model(300, width=16, layers=1, heads=1), pad_id=0)
    learner.begin(Stage(name="s", objective=RrhfD(), optimiser=OptimiserConfig(), steps=1))
    return {name.replace("/", "_") for name in learner.step(some_examples(), 0, version=0)}


def test_every_metric_of_the_dashboard_is_one_that_the_code_exports():
    text = json.dumps(json.loads((DEPLOY / "grafana.json").read_text()))
    asked = set(re.findall(r"\b(?:ray_)?(apprentice_\w+)", text))
    known = exported() | {f"apprentice_learner_{name}" for name in of_a_step()} | {"apprentice_learner_staleness"}
    known |= {f"{name}_bucket" for name in known}
    assert len(asked) >= 15
    assert asked <= known
    ours = set(re.findall(r"\bray_(apprentice_\w+)", text))
    assert all(name.startswith("apprentice_serve_") for name in asked - ours)  # the endpoint is asked itself
    assert not any(name.startswith("apprentice_serve_") for name in ours)
