"""What ``apprentice check`` says of the recipes whose tools are tokens: their tools, texts and requests, as read."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from rl.data.tasks.tool_requests import Query, Retrieval
from rl.data.toolgen import Conversation
from rl.recipes.toolgen_attempts import catalog_of
from rl.recipes.toolgen_config import ToolGenConfig
from rl.recipes.toolgen_stages import conversations, foreign_tokens, tool_tokens, without_held_out
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rl.recipes.trial import tool_trials
from rollouts.types import Task

_SHOWN, _REASONS = 8, 3
_TIMEOUT = 2.0
"""Seconds that one call of a trial may take."""


def stage_checks(config: BaseModel) -> Iterator[str]:
    """What there is to say of a config beyond its keys; yields what to show, nothing of other recipes.

    Raises:
        ConfigError: what it names cannot be had.
        DataError: its data cannot be used.
    """
    if isinstance(config, ToolGenConfig):
        yield from toolgen_checks(config)
    elif isinstance(config, ToolkenGptConfig):
        yield from toolkengpt_checks(config)


def toolgen_checks(config: ToolGenConfig) -> Iterator[str]:
    """See what a ToolGen run would learn from, and try its tools.

    Raises:
        ConfigError: a tool cannot be had, or a run of ``recorded`` is none.
        DataError: requests or files cannot be used.
    """
    data = config.data.load()
    splits = ", ".join(f"{len(getattr(data, name))} {name}" for name in ("train", "validation", "test"))
    yield f"requests   {splits}; {len(data.rejected)} left out"
    yield from (f"           {reason}" for reason in data.rejected[:_REASONS])
    yield f"tools      {len(data.tools)}: {_named(list(data.tools))}"
    yield from _unknown(data, config.retrieval.written)
    tokens = tool_tokens(config, data)
    first = data.train[0].wanted[0]
    foreign = foreign_tokens(config, data, tokens.texts)
    more = f"; {len(foreign)} further tokens of stage_files stand for tools that are none of these" if foreign else ""
    yield f"tokens     {config.indexing}: {tokens.texts[first]} stands for {first}{more}"
    for name in ("memorisation", "retrieval", "agent"):
        learned = without_held_out(conversations(config, data, tokens.texts, name), data)
        yield from _stage(name, getattr(config, name).steps, learned)
    if data.catalog is not None:
        tasks = [Task(id=one.id, prompt=one.text, tools=one.offered) for one in data.train[:1]]
        yield from tool_trials(catalog_of(data), tasks, _TIMEOUT)


def _unknown(data: Retrieval, written: int) -> Iterator[str]:
    """Tools that are told apart by nothing, and requests whose tools nothing is learned of."""
    if bare := [name for name, tool in data.tools.items() if not tool.spec.description]:
        yield f"warning    {len(bare)} tools have no description to be known by: {_named(bare)}"
    wanted = {name for query in data.train for name in query.wanted}
    if written or not (unasked := [name for name in data.tools if name not in wanted]):
        return
    yield (
        f"warning    no training request wants {len(unasked)} of the tools: {_named(unasked)}; retrieval.written has "
        "requests written for every tool"
    )
    if lost := [query for query in data.test if not _any(query, wanted)]:
        yield f"warning    {len(lost)} of {len(data.test)} test requests want such tools alone"


def _any(query: Query, wanted: set[str]) -> bool:
    return bool(wanted.intersection(query.wanted))


def _stage(name: str, steps: int, learned: Sequence[Conversation]) -> Iterator[str]:
    """What a stage learns from, and one of its conversations."""
    if not steps or not learned:
        idle = "it has 0 steps" if not steps else "there is nothing to learn"
        yield f"{'warning' if steps else 'stage':<10} {name} is left out: {idle}"
        return
    yield f"stage      {name}: {steps} steps on {len(learned)} conversations; what is between « and » is learned"
    text = "".join(f"«{one.text}»" if one.learned else one.text for one in learned[0].messages)
    yield from (f"           {line}" for line in text.splitlines())


def toolkengpt_checks(config: ToolkenGptConfig) -> Iterator[str]:
    """See what a ToolkenGPT run would learn from, and which questions it would be asked.

    Raises:
        DataError: the data set cannot be used.
    """
    data = config.data.load()
    places = sum(len(text.spans) for text in data.train)
    left = f"{len(data.rejected)} annotations have no place in theirs"
    yield f"texts      {len(data.train)} train with {places} results, {len(data.validation)} validation; {left}"
    yield from (f"           {reason}" for reason in data.rejected[:_REASONS])
    sets = ", ".join(f"{len(tasks[: config.questions])} {name}" for name, tasks in data.tests.items())
    yield f"questions  {sets}; {len(data.tasks)} of training texts"
    yield f"tools      {len(data.tools)}: {_named(data.tools)}"
    seen = {span.tool for text in data.train for span in text.spans}
    if unseen := [name for name in data.tools if name not in seen]:
        yield f"warning    no training text has {len(unseen)} of the tools: {_named(unseen)}"
    if config.feedback is not None and not data.tasks:
        yield "warning    feedback is left out: these training texts are no questions that could be attempted"
    marked = next(text for text in data.train if text.spans)
    text, end = "", 0
    for span in marked.spans:
        text += f"{marked.text[end : span.start]}«{span.tool}: {marked.text[span.start : span.end]}»"
        end = span.end
    yield "text       a result between « and » is predicted as its tool, and read as it stands"
    yield from (f"           {line}" for line in (text + marked.text[end:]).splitlines())


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
