"""What ``apprentice check`` says of the recipes that are given no tasks: their tools, texts and requests, as read."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import BaseModel

from executors.catalog import Catalog
from executors.corpus.entries import choose_entries
from executors.corpus.records import write_corpus
from executors.corpus.toolset import toolset
from executors.openapi.tools import read_openapi
from executors.simulation.simulated import Simulation
from executors.tools.get_details import ScriptedUser
from rl.data.segments import refusal, segments
from rl.data.tasks.tool_requests import Query, Retrieval
from rl.data.toolgen import Conversation
from rl.recipes.ste_config import ModelImagination, SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolalpaca_tools import Distractors
from rl.recipes.toolgen_attempts import catalog_of
from rl.recipes.toolgen_config import ToolGenConfig
from rl.recipes.toolgen_stages import conversations, foreign_tokens, tool_tokens, without_held_out
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rl.recipes.trial import tool_trials
from rollouts.imagine import SchemaImaginer
from rollouts.instances import CorpusFormat, generate
from rollouts.instructions import planned_instructions
from rollouts.memory import Memory
from rollouts.plans import Planner
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
    elif isinstance(config, SteConfig):
        yield from ste_checks(config)
    elif isinstance(config, ToolAlpacaConfig):
        yield from toolalpaca_checks(config)


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


def ste_checks(config: SteConfig) -> Iterator[str]:
    """See what an STE run would explore, and try its tools on calls made up from their schemas.

    Raises:
        ConfigError: a tool cannot be had.
    """
    catalog = config.catalog()
    known = tuple(config.known.tools) if config.known else ()
    unknown = [name for name in catalog.names if name not in known]
    yield f"tools      {len(unknown)} to explore: {_named(unknown)}; {len(known)} known{_listed(known)}"
    if bare := [spec.name for spec in catalog.specs() if not spec.description]:
        yield f"warning    {len(bare)} tools have no documentation to be explored from: {_named(bare)}"
    tasks: list[Task] = []
    for spec in catalog.specs(unknown):
        made = asyncio.run(SchemaImaginer(errors=0).imagine(spec, Memory(spec), (), config.seed))
        if made is None or made.call is None:
            yield f"warning    no call of {spec.name} can be made up from its schema"
            continue
        tasks.append(Task(id=spec.name, prompt=made.query, tools=(spec.name,), gold=made.call))
    if not tasks:
        return
    if isinstance(config.imaginer, ModelImagination):
        yield f"queries    {config.imaginer.policy} writes them in a run; these are made up from schemas"
    first, specs = tasks[0], catalog.specs([tasks[0].id])
    format = config.format.build()
    assert first.gold is not None
    yield f"prompt     a query to {first.id}; what is between « and » is learned"
    text = f"{format.opening(first, specs)}«{format.write_call(first.gold, specs)}»"
    yield from (f"           {line}" for line in text.splitlines())
    yield from tool_trials(Catalog([catalog.get(name) for name in unknown]), [replace(first, gold=None)], _TIMEOUT)


def _listed(names: Sequence[str]) -> str:
    return f": {_named(names)}" if names else ""


def toolalpaca_checks(config: ToolAlpacaConfig) -> Iterator[str]:
    """See what a ToolAlpaca run would make its corpus of: an API and an attempt at a request, as the script has them.

    Raises:
        DataError: the list of APIs cannot be used.
    """
    corpus = config.corpus
    entries = corpus.listed()
    chosen = choose_entries(entries, corpus.apis + corpus.held_out, config.seed)
    yield f"entries    {len(entries)}; {corpus.apis} are learned from and {corpus.held_out} held out"
    records = list(write_corpus(chosen[: 1 + corpus.distractors], config.seed))
    name, apis = str(records[0]["Name"]), [read_openapi(one["Documentation"]) for one in records]
    yield f"API        {name}: {_named([one.name for one in apis[0].operations])}"
    for part, policy in corpus.writers.parts.items():
        yield f"writer     {policy} writes {part} in a run; here the script does, and nobody is asked"
    count = -(-corpus.instances // corpus.apis)
    asked = planned_instructions(name, Planner(name, apis[0].operations, config.seed), count, style=corpus.style)
    if len(asked) < count:
        yield f"warning    of {count} requests to this API {len(asked)} are different enough; have more APIs"
    simulation = Simulation(apis[0])
    beside = Distractors(apis, corpus.distractors, config.seed).beside(apis[0], name)
    groups = asyncio.run(generate(name, asked, simulation, seed=config.seed, beside=beside))
    usable = [group for group in groups if not refusal(group.episodes[0])]
    yield f"attempts   {len(usable)} of {len(groups)} at its requests pass the filter"
    if not usable:
        return
    specs = [tool.spec for tool in toolset(simulation, ScriptedUser(), beside=beside)]
    row = segments(usable[0].task, usable[0].episodes[0], specs, CorpusFormat())
    yield "attempt    what is between « and » is learned"
    text = "".join(f"«{text}»" if learned else text for text, learned in zip(row.texts, row.learned, strict=True))
    yield from (f"           {line}" for line in text.splitlines())


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
