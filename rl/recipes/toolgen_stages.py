"""What each of ToolGen's stages learns from: tools, requests, recorded attempts, and files of other projects."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rewards.types import Candidate
from rl.data.exports import Exported, best_attempts
from rl.data.searches import agent_rows, read_trees
from rl.data.tasks.tool_requests import Retrieval, plain
from rl.data.tasks.toolbench import legacy_name
from rl.data.toolgen import (
    Conversation,
    memorised,
    read_seed,
    read_sharegpt,
    retrieved,
    seed_names,
    seed_tokens,
    seeded,
)
from rl.data.trees import FINISH as END
from rl.data.trees import calls_of
from rl.data.ways import kept_ways
from rl.data.written_requests import written_requests
from rl.models.tool_tokens import FINISH, ToolTokens, index_tools
from rl.recipes.logged import Logged
from rl.recipes.toolgen_attempts import FINISH_NAME
from rl.recipes.toolgen_config import ToolGenConfig
from rollouts.formats.atomic import AtomicFormat


def tool_tokens(config: ToolGenConfig, data: Retrieval) -> ToolTokens:
    """What stands for each tool, and for the end."""
    identities = {name: tool.identity for name, tool in data.tools.items()}
    about = {name: tool.spec.description for name, tool in data.tools.items()}
    named = index_tools(identities, config.indexing, descriptions=about, seed=config.seed)
    return ToolTokens(config.indexing, {**named.texts, FINISH_NAME: FINISH})


def conversations(config: ToolGenConfig, data: Retrieval, texts: Mapping[str, str], stage: str) -> list[Conversation]:
    """What a stage learns from.

    Args:
        config: of the run.
        data: its tools and requests.
        texts: by name, what stands for each tool.
        stage: ``memorisation``, ``retrieval`` or ``agent``.

    Raises:
        ConfigError: a run of ``recorded`` is of a recipe that ranks no attempts.
        DataError: a file cannot be read, or a run has no groups.
    """
    built: list[Conversation] = []
    if stage == "memorisation":
        built = memorised(data.tools.values(), texts)
    elif stage == "retrieval":
        beside = written_requests(data.tools, config.retrieval.written, config.seed)
        built = retrieved([*data.train * config.retrieval.repeated, *beside], texts, AtomicFormat())
        built += memorised(data.tools.values(), texts) if config.retrieval.rehearsed else []
    else:
        built = [one for run in config.recorded.runs for one in _recorded(config, Path(run), texts)]
    if config.stage_files is None:
        return built
    folder = Path(config.stage_files)
    known = named(data, texts)
    built += read_seed(folder, stage, known | {token: known.get(name, token) for token, name in seed_names(folder)})
    own = folder / f"sharegpt-{stage}.json"
    built += read_sharegpt(own) if own.is_file() else []
    if stage == "agent" and (folder / "trees").is_dir():
        rows = agent_rows(read_trees(folder / "trees").values(), known, kept=config.trees)
        built += [one for number, row in enumerate(rows) for one in seeded("agent", row, f"trees/{number}")]
    return built


def without_held_out(learned: Sequence[Conversation], data: Retrieval) -> list[Conversation]:
    """Conversations but those that ask what is held out: other runs and files have splits of their own."""
    texts = [query.text for query in (*data.validation, *data.test)]
    held_out = {plain(form) for text in texts for form in (text, AtomicFormat().asked(text))}
    return [
        one for one in learned if not any(plain(said.text) in held_out for said in one.messages if not said.learned)
    ]


def named(data: Retrieval, texts: Mapping[str, str]) -> dict[str, str]:
    """What stands for each tool, by the name that ToolBench runs it under and by ours."""
    legacy = {legacy_name(tool.identity.owner, tool.identity.raw): texts[name] for name, tool in data.tools.items()}
    return legacy | {name: texts[name] for name in data.tools}


def foreign_tokens(config: ToolGenConfig, data: Retrieval, texts: Mapping[str, str]) -> list[str]:
    """Tokens that files of other projects have for tools that are none of these: each becomes one of its own."""
    if config.stage_files is None:
        return []
    folder = Path(config.stage_files)
    known = named(data, texts)
    ours = {token for token, name in seed_names(folder) if name in known} | set(texts.values()) | set(known)
    return [token for token in seed_tokens(folder) if token not in ours]


def _recorded(config: ToolGenConfig, run: Path, texts: Mapping[str, str]) -> Iterator[Conversation]:
    """The best attempts of a run's groups, of those that called no other tools than these and came to an answer."""
    logged = Logged(run)
    groups = (one for one in logged.groups() if _worth(one.group.candidates, config.recorded.min_reward))
    for id, attempt in best_attempts(groups, logged.setting, Exported()):
        called = {made.tool for way in kept_ways(attempt, config.trees) for made in calls_of(way)}
        if called - {"", END} - set(texts):
            continue
        for row in agent_rows([attempt], texts, kept=config.trees):
            yield from seeded("agent", row, f"{run.name}/{id}")


def _worth(candidates: Sequence[Candidate], least: float | None) -> bool:
    return least is None or (bool(candidates) and candidates[0].reward.value >= least)
