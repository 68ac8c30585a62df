"""The line that submits a run to a cluster, and what a machine is found to have."""

import json

import pytest

from executors.errors import ConfigError
from rl.doctor import examine
from rl.submission import compose


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("recipe: trice")
    for left in (".git/objects/x", "runs/one/model.bin", ".venv/lib/y", "weights.safetensors"):
        path = tmp_path / left
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    return tmp_path


def test_the_line_is_plain_ray_and_leaves_out_what_no_job_needs(folder):
    job = compose(["train", "config.yaml", "seed=1"], folder=folder, address="http://head:8265", name="mine")
    assert job.command[:7] == ("ray", "job", "submit", "--address", "http://head:8265", "--submission-id", "mine")
    assert job.command[-7:] == ("--", "python", "-m", "rl", "train", "config.yaml", "seed=1")
    environment = json.loads(job.command[job.command.index("--runtime-env-json") + 1])
    assert {".git", "runs", ".venv", "*.safetensors"} <= set(environment["excludes"])
    assert (job.size, job.largest) == (13, (("config.yaml", 13),))
    assert job.line.startswith("ray job submit --address http://head:8265")


def test_variables_travel_where_they_are_named_and_secrets_never(folder, monkeypatch):
    monkeypatch.setenv("APPRENTICE_DATA", "/shared/data")
    monkeypatch.setenv("TEACHER_KEY", "hidden-value")
    job = compose(["train", "config.yaml"], folder=folder, variables=["APPRENTICE_DATA"])
    assert '"APPRENTICE_DATA": "/shared/data"' in job.line
    with pytest.raises(ConfigError, match="shown in the dashboard"):
        compose(["train", "config.yaml"], folder=folder, variables=["TEACHER_KEY"])
    with pytest.raises(ConfigError, match="NOT_THERE: it is not set"):
        compose(["train", "config.yaml"], folder=folder, variables=["NOT_THERE"])


def test_what_is_too_much_or_elsewhere_is_refused_before_anything_is_sent(folder, monkeypatch):
    with pytest.raises(ConfigError, match=r"there is no other\.yaml in"):
        compose(["train", "other.yaml"], folder=folder)
    (folder.parent / "outside.yaml").write_text("")
    with pytest.raises(ConfigError, match="only that travels"):
        compose(["train", "../outside.yaml"], folder=folder)
    monkeypatch.setattr("rl.submission._MOST", 1000)
    (folder / "big.bin").write_bytes(b"x" * 2000)
    with pytest.raises(ConfigError, match=r"the largest are big\.bin"):
        compose(["train", "config.yaml"], folder=folder)


def test_the_machine_is_examined_subject_by_subject(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    findings = {finding.subject: finding for finding in examine(tmp_path)}
    assert set(findings) == {"python", "packages", "machine", "gpu", "sandbox", "storage", "ray", "data"}
    assert findings["python"].state == findings["packages"].state == "ok"
    assert findings["ray"].state == "lacking"
    assert "RAY_AUTH_TOKEN_PATH" in findings["ray"].detail
    assert all(finding.detail for finding in findings.values())
