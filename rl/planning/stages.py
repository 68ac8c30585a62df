"""What cannot work, or is never read, of a config of the recipes with stages of their own: all but trice."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from executors.errors import ConfigError, DataError
from rl.data.formats import React
from rl.recipes.ste_config import IMAGINED, SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rollouts.formats.toolken import QUESTION


def stage_mistakes(config: BaseModel) -> Iterator[str]:
    """Every such mistake, one a line: the key path, what was there, what to try."""
    if isinstance(config, SteConfig):
        yield from _ste(config)
    elif isinstance(config, ToolAlpacaConfig):
        yield from _toolalpaca(config)
    elif isinstance(config, ToolkenGptConfig):
        yield from _toolkengpt(config)


def _toolkengpt(config: ToolkenGptConfig) -> Iterator[str]:
    for name, template in (("template", config.template), ("calls_template", config.calls_template)):
        if template is not None and QUESTION not in template:
            yield f"{name}: it has no {QUESTION}; write where the question stands"
    if config.shots and config.data.kind == "virtualhome":
        yield "shots: VirtualHome's prompts have worked plans of their own (data.shots); leave it at 0"
    if config.shots and config.calls_template is not None:
        yield "calls_template: with shots nothing reads it, the worked answers show how calls are written; leave it out"


def _ste(config: SteConfig) -> Iterator[str]:
    lists = {"known.tools": config.known.tools if config.known else [], "ablations": config.ablations}
    lists["batches"] = [tool for batch in config.batches for tool in batch]
    lists["exploitation.arms"] = config.exploitation.arms
    for where, names in lists.items():
        for name in (name for name, count in Counter(names).items() if count > 1):
            yield f"{where}: {name!r} stands there twice; once is enough"
    if "tokens" in config.exploitation.arms and not (isinstance(config.format, React) and config.format.tool_markers):
        yield (
            "exploitation.arms: tokens learns tokens of the tools' own, and there are none; take format react with "
            "tool_markers, or leave the arm out"
        )
    for number, actor in enumerate(config.actors):
        if actor.policy == IMAGINED:
            for name in sorted(actor.model_fields_set - {"policy"}):
                yield f"actors.{number}.{name}: the imagined call is written out, not sampled; leave it out"
    if config.known is not None:
        yield from _single("known.learning", config.known.learning.objective.kind)
    for name in ("learning", "documented", "rounds"):
        if (learning := getattr(config.exploitation, name)) is not None:
            yield from _single(f"exploitation.{name}", learning.objective.kind)


def idle_stages(config: BaseModel) -> Iterator[str]:
    """Settings of what a run of STE does not do, for as long as its arms and batches are as they are."""
    if not isinstance(config, SteConfig):
        return
    settings, arms = config.exploitation, config.exploitation.arms
    read = {"documented": "documented", "ranking": "ranked", "tokens_lr": "tokens"}
    for name in (name for name, arm in read.items() if name in settings.model_fields_set and arm not in arms):
        yield f"exploitation.{name}: nothing reads it without the arm {read[name]}; add it to exploitation.arms"
    if "rounds" in settings.model_fields_set and not config.batches:
        yield "exploitation.rounds: nothing is learned in rounds; name the tools of each in batches"


def _single(where: str, kind: str) -> Iterator[str]:
    if kind != "sft":
        yield f"{where}.objective: {kind} compares attempts, and each example here is a single one; take sft"


def _toolalpaca(config: ToolAlpacaConfig) -> Iterator[str]:
    yield from _single("learning", config.learning.objective.kind)
    writers = config.corpus.writers
    read = {"tries": "apis", "pieces": "apis", "max_functions": "apis", "rolls": "simulation"}
    read |= {"temperature": "assistant", "max_tokens": "assistant"}
    for name, part in read.items():
        asked = [writers.apis, writers.assistant] if name == "max_tokens" else [getattr(writers, part)]
        if name in writers.model_fields_set and not any(asked):
            yield f"corpus.writers.{name}: a script writes that part; name a policy in corpus.writers.{part}"
    if "at_once" in writers.model_fields_set and not writers.parts:
        yield "corpus.writers.at_once: scripts write all of the corpus, one API after the other; leave it out"
    entries = config.corpus.entries
    if entries is not None and not Path(entries).is_file():
        return  # that is told already
    try:
        there = len(config.corpus.listed())
    except (ConfigError, DataError) as error:
        yield f"corpus.entries: {error}"
        return
    if (wanted := config.corpus.apis + config.corpus.held_out) > there:
        yield (
            f"corpus.apis: {config.corpus.apis} and {config.corpus.held_out} held out are {wanted}, and the list has "
            f"{there} of different names; take fewer, or another list in corpus.entries"
        )
