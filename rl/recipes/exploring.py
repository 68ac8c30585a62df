"""What ``apprentice explore`` does: STE's stages as far as they are wanted."""

from collections.abc import Sequence
from pathlib import Path

from executors.errors import ConfigError
from rl.config import override, read_yaml, validate
from rl.progress import Progress
from rl.recipes.ste import Wanted, explore
from rl.recipes.ste_config import SteConfig
from rl.run import Run


def read_config(path: Path, assignments: Sequence[str]) -> tuple[SteConfig, str]:
    """A config of STE with its overrides, and its text.

    Raises:
        ConfigError: it is none.
    """
    content = override(read_yaml(path), assignments)
    if content.get("recipe") != "ste":
        raise ConfigError(f"{path}: its recipe is {content.get('recipe')!r}, and what explores is 'ste'")
    return validate(content, SteConfig, str(path)), path.read_text()


def start(
    config: SteConfig, text: str, folder: Path, *, learn: bool, ablations: bool, rounds: bool, resume: bool
) -> None:
    """Make the run's folder, or open it again, run the stages, and say where things are.

    Args:
        config: of the run.
        text: of its file.
        folder: of the run.
        learn: whether to learn what was found.
        ablations: whether to explore again without each of the parts that the config names, or of all.
        rounds: whether to learn in rounds.
        resume: whether the run is there already.
    """
    resolved = config.model_dump(mode="json")
    run = Run.start(folder, config_text=text, resolved=resolved, resume=resume, may_differ=config.MAY_DIFFER)
    parts = config.ablations or ["execution", "short_term", "long_term", "reflection"]
    wanted = Wanted(learn=learn, ablations=parts if ablations else (), rounds=rounds)
    explore(config, run, wanted, Progress())
    print(f"in {folder}: explored.jsonl (trials), examples.jsonl, rejected.jsonl, evaluation/report.md")
