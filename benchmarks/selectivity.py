"""What each objective makes of the same cloned policies: ``python -m benchmarks.selectivity --seeds 0,1,2``.

For every seed the first arm runs whole; the others fork from its cloned policy and peer, so that they differ in the
second stage alone. Figures are means over seeds; intervals resample seeds and questions.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from rl.config import override, read_yaml, validate
from rl.evaluation.seeds import pool_seeds, table
from rl.recipes.trice import TriceConfig

CONFIG = Path("configs/trice/tiny.yaml")
ARMS = {
    "rrhf_d": [],
    "best_of_n": ["improvement.objective={kind: sft, decision_weight: 8}"],
    "rrhf": ["improvement.objective={kind: rrhf}"],
}
"""By name, what each arm changes in the config."""


def main() -> None:
    """Run the arms and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default=",".join(ARMS), help="some of: " + ", ".join(ARMS))
    parser.add_argument("--folder", type=Path, default=Path("runs/selectivity"))
    parser.add_argument("--set", action="append", default=[], help="a change to the config, such as tasks.test=300")
    parser.add_argument("--json", action="store_true", help="print one object of named figures")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    arms = arguments.arms.split(",")
    for seed in seeds:
        for arm in arms:
            whole = arguments.folder / f"{arms[0]}-seed{seed}"
            train(arguments.folder / f"{arm}-seed{seed}", whole, [*arguments.set, *ARMS[arm], f"seed={seed}"])
    measure = validate(read_yaml(CONFIG), TriceConfig, str(CONFIG)).evaluation
    figures: dict[str, Any] = {}
    for arm in arms:
        folders = [arguments.folder / f"{arm}-seed{seed}" for seed in seeds]
        pooled = pool_seeds(folders, measure, arguments.folder / f"{arm}.json")
        figures |= {
            f"{arm}/{state}/{name}/{part}": value
            for state in ("start", "final", "change", "continued_cloning", "always_call", "always_direct")
            for name, figure in pooled.get(state, {}).items()
            for part, value in figure.items()
        }
        if not arguments.json:
            print(f"\n{arm}\n{table(pooled)}")
    if arguments.json:
        print(json.dumps(figures))


def train(folder: Path, whole: Path, changes: list[str]) -> None:
    """Run one arm unless it is there; from the cloned policy of ``whole`` where that is another run."""
    if (folder / "evaluation" / "summary.json").exists():
        return
    if folder != whole and not folder.exists():
        fork(whole, folder, changes)
    resume = ["--resume"] if folder.exists() else []
    command = [sys.executable, "-m", "rl", "train", str(CONFIG), *changes, "--run-dir", str(folder), *resume]
    subprocess.run(command, check=True, stdout=sys.stderr)


def fork(whole: Path, folder: Path, changes: list[str]) -> None:
    """A run that stands where another stood after its first stage."""
    config = validate(override(read_yaml(CONFIG), changes), TriceConfig, str(CONFIG))
    for name in ("step-0", f"step-{config.cloning.steps}"):
        shutil.copytree(whole / "checkpoints" / name, folder / "checkpoints" / name)
    shutil.copytree(whole / "peers", folder / "peers")
    for kept in ("start.jsonl", "continued_cloning.jsonl"):
        (folder / "evaluation").mkdir(exist_ok=True)
        shutil.copy(whole / "evaluation" / kept, folder / "evaluation" / kept)
    (folder / "config.resolved.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


if __name__ == "__main__":
    main()
