"""What cannot work of a config that is valid by itself, found without tensors and before any process starts."""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from pydantic import BaseModel

from executors.errors import ConfigError, DataError
from rewards.ranking import GOLD
from rewards.selectivity import LIVE
from rl.config import There, named_places, parts
from rl.data.formats import Chat
from rl.planning.knobs import RECORDED, idle_knobs, joins
from rl.planning.stages import stage_mistakes
from rl.recipes.parts import LearnerSettings, RecipeConfig
from rl.recipes.ste_config import SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolgen_config import ToolGenConfig


def mistakes(config: BaseModel) -> list[str]:
    """Every such mistake, one a line: the key path, what was there, what to try."""
    found = [*_absent(config), *idle_knobs(config)]
    if isinstance(config, RecipeConfig):
        found += [*_unplayed(config), *_unplaced(config), *_tools(config), *_searched(config)]
    if isinstance(config, SteConfig):
        found += [*_unplaced_trials(config), *_tools_of_ste(config)]
    if isinstance(config, ToolAlpacaConfig | ToolGenConfig) and config.learner is not None:
        found += _unplaced_learner(config.learner)
    return [*found, *stage_mistakes(config), *_unwritten(config)]


def gpus_here() -> int:
    """GPUs of this machine that processes may use, asked of nothing but its files."""
    devices = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(devices)
    return min(len(devices), len([part for part in visible.split(",") if part.strip() not in ("", "-1")]))


def _absent(config: BaseModel) -> Iterator[str]:
    """Files and folders that a run would read, and that are not there."""
    for path, part in parts(config):
        for name, value, place in named_places(part):
            where = f"{path}.{name}" if path else name
            if problem := _missing(Path(value), place):
                yield f"{where}: {problem}"
    for name, policy in getattr(config, "policies", {}).items():
        key = getattr(policy, "key_env", None)
        if key and not os.environ.get(key):
            yield f"policies.{name}.key_env: the variable {key} is not set here; export it, or leave key_env out"
    rewards = getattr(config, "rewards", None)
    own = getattr(rewards, "path", None) if getattr(rewards, "kind", "") == "own" else None
    if own is not None and (problem := _missing(Path(own), There("file"))):
        yield f"rewards.path: {problem}"


def _missing(path: Path, place: There) -> str:
    if place.kind == "file" and not path.is_file():
        return f"there is no file {path}{_near(path)}"
    if place.kind == "folder" and not path.is_dir():
        return f"there is no folder {path}{_near(path)}"
    holds = any((path / name).is_file() for name in ("config.json", "adapter_config.json"))
    if place.kind == "model" and not holds:
        return (
            f"{path} is no model directory, which has a config.json; name one that save_pretrained wrote, such as "
            f"runs/NAME/checkpoints/best{_near(path)}"
        )
    return ""


def _near(path: Path) -> str:
    """A hint at something of a like name beside it."""
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [name for name in beside if name != path.name], n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _unplayed(config: RecipeConfig) -> Iterator[str]:
    """Sources that play a policy which there is not, where that can be told without the data."""
    if config.tasks.kind in RECORDED:
        return
    known = sorted({LIVE, GOLD, *config.peers, *config.policies})
    for number, source in enumerate(config.sources):
        if source.policy not in known:
            close = difflib.get_close_matches(source.policy, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "name a further model under peers or policies"
            yield (
                f"sources.{number}.policy: {source.name!r} plays {source.policy!r}, and there are "
                f"{', '.join(known)}; {hint}"
            )


def _searched(config: RecipeConfig) -> Iterator[str]:
    """Searches whose attempts the objective cannot learn from."""
    search = config.rollouts.search
    if search is not None and search.method == "dfs" and config.improvement.objective.kind == "grpo":
        yield (
            "rollouts.search: method dfs has replies written behind what it says of earlier tries, which is no part of "
            "the attempt: grpo would weigh them by other probabilities; take an objective that ranks, or method chain"
        )


def _unwritten(config: BaseModel) -> Iterator[str]:
    """A chat template that nobody has, and a folder of runs that cannot be made."""
    format = getattr(config, "format", None)
    if isinstance(format, Chat) and not format.tokenizer:
        yield "format.tokenizer: it is empty; name the model directory whose chat template is meant"
    storage = str(getattr(config, "storage", ""))
    if storage and "://" not in storage:
        folder = Path(storage).expanduser().absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            why = "cannot be written to" if there.is_dir() else "is a file"
            yield f"storage: no folder {storage} can be made, for {there} {why}; name another"


def _unplaced(config: RecipeConfig) -> Iterator[str]:
    """What this machine cannot give, where the run would start a cluster of its own on it."""
    if joins():
        return
    placed = {
        f"policies.{name}.place": place
        for name, policy in config.policies.items()
        if (place := getattr(policy, "place", None)) is not None
    }
    wanted = {"learner.gpu": float(config.learner.workers * config.learner.gpu)}
    wanted["rollouts.gpus"] = config.rollouts.workers * config.rollouts.gpus
    wanted |= {f"executor.pools.{name}.gpus": pool.count * pool.gpus for name, pool in config.executor.pools.items()}
    wanted |= {f"{name}.gpus": place.workers * place.gpus for name, place in placed.items()}
    customs = {"learner.resources": config.learner.resources, "rollouts.resources": config.rollouts.resources}
    customs |= {f"executor.pools.{name}.resources": pool.resources for name, pool in config.executor.pools.items()}
    customs |= {f"{name}.resources": place.resources for name, place in placed.items()}
    yield from _not_here(wanted, customs)
    memory = psutil.virtual_memory().total // 2**20
    if config.ray.object_store_mib > memory:
        yield f"ray.object_store_mib: {config.ray.object_store_mib} MiB, and this machine has {memory}; ask for less"


def _unplaced_trials(config: SteConfig) -> Iterator[str]:
    """The same, of the workers that make trials, and of the ranks that learn when these have ended."""
    place = config.place
    if place is not None and not joins():
        yield from _not_here({"place.gpus": place.workers * place.gpus}, {"place.resources": place.resources})
    if config.learner is not None:
        yield from _unplaced_learner(config.learner)


def _unplaced_learner(learner: LearnerSettings) -> Iterator[str]:
    """The same, of the ranks of a fit."""
    if not joins():
        gpus = {"learner.gpu": float(learner.workers * learner.gpu)}
        yield from _not_here(gpus, {"learner.resources": learner.resources})


def _not_here(wanted: Mapping[str, float], customs: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """GPUs that this machine has too few of, and custom resources, which only nodes of a cluster have; by key."""
    there = gpus_here()
    if (needed := sum(wanted.values())) > there:
        asked = ", ".join(f"{name} {count:g}" for name, count in wanted.items() if count)
        yield (
            f"{next(name for name, count in wanted.items() if count)}: the run takes {needed:g} GPUs ({asked}) and "
            f"this machine has {there}; ask for fewer, submit it to a cluster, or set RAY_ADDRESS to one"
        )
    for name, resources in customs.items():
        if resources:
            yield (
                f"{name}: {', '.join(resources)} is what the nodes of a cluster are given (ray start --resources), and "
                "a run on this machine has none; leave it out, or set RAY_ADDRESS"
            )


def _tools(config: RecipeConfig) -> Iterator[str]:
    """Tools that cannot be had, and pools that run tools which there are not."""
    if _starts_servers(config.tasks) or any(True for _ in _absent(config.tasks)):
        return
    try:
        names = config.tasks.catalog().names
    except (ConfigError, DataError) as error:
        yield f"tasks: {error}"
        return
    for pool, settings in config.executor.pools.items():
        for tool in settings.tools:
            if tool not in names:
                close = difflib.get_close_matches(tool, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names[:10])}"
                yield f"executor.pools.{pool}.tools: there is no tool {tool!r}; {hint}"


def _tools_of_ste(config: SteConfig) -> Iterator[str]:
    if _starts_servers(config):
        return
    try:
        config.catalog()
    except (ConfigError, DataError) as error:
        yield f"tools: {error}"


def _starts_servers(config: BaseModel) -> bool:
    """Whether looking at the tools would start processes, as MCP's servers are."""
    return "'mcp" in repr(config.model_dump())
