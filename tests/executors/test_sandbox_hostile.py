"""The sandbox against hostile programs, on a fake host: the corpus of the data pack, and one of our own."""

import json
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.executors import fakehost

CORPUS = Path(os.environ.get("APPRENTICE_DATA", "../shared/data")).resolve() / "hostile_calls.jsonl"
OWN = Path(__file__).with_name("hostile_programs.txt")
SECRET = "/var/tmp/sbx_canary_secret"
WALL_S = "1"
EFFECTS_ALONE = ("--must", "blocked", "ok")
VARIANTS = {
    "ns": ("ns",),
    "ll": ("ll",),
    "ns without landlock": ("ns", "--without-landlock", *EFFECTS_ALONE),
    "ns, nobody": ("ns", *EFFECTS_ALONE),
    "ll, nobody": ("ll", *EFFECTS_ALONE),
}
"""The tiers, as root and as a user without privileges."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("bwrap") is None,
        reason="HOSTILE PROGRAMS WERE NOT TRIED: there is no bubblewrap to make a fake host of; install it",
    ),
]


def own_programs() -> list[dict[str, str]]:
    """The programs of the text file, as rows of a corpus."""
    _, *parts = re.split(r"^### (\w+) (.+)\n", OWN.read_text(), flags=re.MULTILINE)
    groups = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return [{"id": f"{must} {name}", "tool": "python", "input": text, "must": must} for must, name, text in groups]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    """Each corpus under each variant, all begun at once: verdicts to wait for."""
    own = tmp_path_factory.mktemp("hostile") / "own.jsonl"
    own.parent.chmod(0o755)
    own.write_text("".join(json.dumps(row) + "\n" for row in own_programs()))
    with ThreadPoolExecutor(2) as threads:
        yield {
            (corpus, name): threads.submit(
                fakehost.judge, path, *variant, "--wall-s", WALL_S, nobody=name.endswith("nobody")
            )
            for corpus, path in (("own", own), ("pack", CORPUS))
            if path.exists()
            for name, variant in VARIANTS.items()
            if os.geteuid() == 0 or not name.endswith("nobody")
        }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("corpus", ["own", "pack"])
def test_every_hostile_program_comes_to_what_it_must(runs: dict[tuple[str, str], Future], corpus, variant, tmp_path):
    """A program of which the sandbox says that it failed itself is tried once more, alone: all of this runs at once."""
    if (corpus, variant) not in runs:
        pytest.skip(f"{CORPUS} is not here" if corpus == "pack" else "only root can become nobody")
    verdicts = runs[corpus, variant].result()
    assert len(verdicts) > 50
    wrong = [verdict for verdict in verdicts if not verdict["passed"]]
    if wrong and all(verdict["got"] == "failed" for verdict in wrong):
        for run in runs.values():
            run.result()
        rows = own_programs() if corpus == "own" else list(map(json.loads, CORPUS.read_text().splitlines()))
        again = {verdict["id"] for verdict in wrong}
        alone = tmp_path / "again.jsonl"
        alone.write_text("".join(json.dumps(row) + "\n" for row in rows if row["id"] in again))
        for folder in (tmp_path.parent, tmp_path):
            folder.chmod(0o755)
        judged = fakehost.judge(alone, *VARIANTS[variant], "--wall-s", WALL_S, nobody=variant.endswith("nobody"))
        assert {verdict["id"] for verdict in judged} == again
        wrong = [verdict for verdict in judged if not verdict["passed"]]
    assert wrong == []


def test_the_judge_sees_what_a_sandbox_that_does_not_hold_lets_through(tmp_path):
    harmful = {"blocked utime", "blocked symlink-chain", "blocked abstract", "blocked remove"}
    rows = [row for row in own_programs() if row["id"] in harmful]
    rows.append({"id": "reads", "tool": "python", "input": f"print(open({SECRET!r}).read())", "must": "blocked"})
    rows.append({"id": "hangs", "tool": "python", "input": "while True: pass", "must": "ok"})
    rows.append({"id": "fine", "tool": "python", "input": "1 + 1", "must": "ok"})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdicts = fakehost.judge(path, "none", "--wall-s", WALL_S)
    assert len(verdicts) == len(harmful) + 3
    assert [verdict["id"] for verdict in verdicts if verdict["passed"]] == ["fine"]
