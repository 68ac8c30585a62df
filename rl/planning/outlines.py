"""The recipes that bring their own training: their processes and stages, and what these ask of models."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from executors.errors import ApprenticeError
from rl.models.choice import TinyModel
from rl.planning.quantities import count
from rl.planning.requests import Asked, cost_of
from rl.recipes.ste_config import IMAGINED, LIVE, Learning, ModelImagination, SteConfig
from rl.recipes.toolalpaca_config import ToolAlpacaConfig
from rl.recipes.toolgen_config import ToolGenConfig
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rl.serving.sources import EndpointConfig, PolicyConfig, VllmConfig
from rl.trials.worker import DRAWS
from rollouts.instances import MAX_TURNS

_WRITTEN = {"requests": 2000, "user": 400, "simulation": 1500}
"""Tokens of one reply at most, where the config does not say."""
_TRIES = {"requests": 4, "user": 3}
"""Times that a model is asked for the requests to one API, and for one answer of the user's."""
_IMAGINED, _JUDGED = 3, 2
"""Times that a model is asked for one query of STE's, and for one verdict."""


def outline(config: BaseModel) -> Iterator[str]:
    """The lines of a plan that say what a recipe does, in order; none for a recipe that is planned elsewhere."""
    if isinstance(config, ToolAlpacaConfig):
        yield from _toolalpaca(config)
    elif isinstance(config, SteConfig):
        yield from _ste(config)
    elif isinstance(config, ToolkenGptConfig):
        yield from _toolkengpt(config)
    elif isinstance(config, ToolGenConfig):
        yield from _toolgen(config)


def _fit(name: str, steps: int, batch_size: int, length: int, what: str = "examples") -> str:
    read = steps * batch_size
    return f"{name:<10} {steps:,} steps of {batch_size}: {read:,} {what}, at most {count(read * length)} tokens"


def _toolalpaca(config: ToolAlpacaConfig) -> Iterator[str]:
    corpus, length = config.corpus, config.model.max_length
    by = {part: corpus.writers.parts.get(part, "a script") for part in ("apis", "requests", "assistant")}
    yield (
        f"corpus     {corpus.apis + corpus.held_out} APIs by {by['apis']}, {corpus.held_out} of them held out; "
        f"{corpus.instances:,} requests by {by['requests']}, attempts at them by {by['assistant']}"
    )
    if (copying := config.learning.copying) is not None:
        yield _fit("copying", copying.steps, copying.batch_size, length, "attempts")
    yield _fit("learn", config.learning.steps, config.learning.batch_size, length, "attempts")
    reply = config.max_turns * config.max_tokens
    if (improvement := config.improvement) is not None:
        attempts = improvement.rounds * improvement.requests * improvement.attempts
        yield (
            f"improve    {improvement.rounds} rounds of {improvement.requests} requests by {improvement.attempts} "
            f"attempts: {attempts:,} attempts, at most {count(attempts * reply)} tokens written; "
            f"{improvement.rounds * improvement.steps:,} steps of {improvement.batch_size}"
        )
    asked, states = corpus.held_out * corpus.test_requests, 2 + (config.improvement is not None)
    yield (
        f"measure    {asked:,} requests to held-out APIs, {states} times: at most {count(states * asked * reply)} "
        "tokens written"
    )
    yield from _endpoints(config.policies, _of_corpus(config))


def _of_corpus(config: ToolAlpacaConfig) -> Mapping[str, Mapping[str, Asked]]:
    """By endpoint and part, what writing the corpus asks, if every reply is cut, refused or rolled again."""
    corpus, writers = config.corpus, config.corpus.writers
    calls = corpus.instances * MAX_TURNS
    requests = {
        "apis": 3 * (corpus.apis + corpus.held_out) * writers.tries * writers.pieces,
        "requests": corpus.apis * _TRIES["requests"],
        "assistant": calls,
        "user": calls * _TRIES["user"],
        "simulation": calls * writers.rolls,
    }
    found: dict[str, dict[str, Asked]] = {}
    for part, name in writers.parts.items():
        asked = Asked(requests[part], requests[part] * _WRITTEN.get(part, writers.max_tokens))
        found.setdefault(name, {})[part] = asked
    return found


def _endpoints(
    policies: Mapping[str, PolicyConfig], asked: Mapping[str, Mapping[str, Asked]], budget: float | None = None
) -> Iterator[str]:
    for name, policy in policies.items():
        if isinstance(policy, EndpointConfig | VllmConfig):
            parts = asked.get(name, {})
            told = ", ".join(f"{part} {one.requests:,}" for part, one in parts.items())
            whole = Asked(sum(one.requests for one in parts.values()), sum(one.written for one in parts.values()))
            yield (
                f"endpoint   {name}: at most {whole.requests:,} requests ({told}), {count(whole.written)} tokens "
                f"written, to {policy.base_url}; {cost_of(policy, whole.written, budget)}"
            )


def _ste(config: SteConfig) -> Iterator[str]:
    length = config.model.max_length
    known = config.known.tools if config.known else []
    if config.known is not None:
        learning = config.known.learning
        yield f"known      {len(known)} tools by {len(known) * config.known.demonstrations:,} demonstrations"
        yield _fit("base", learning.steps, learning.batch_size, length)
    try:
        names = config.catalog().names
    except ApprenticeError as error:
        yield f"explore    the tools cannot be counted here: {error}"
        yield from _learned(config)
        return
    unknown = [name for name in names if name not in known]
    exploration, read = config.exploration, "documented" in config.exploitation.arms
    times = 1 + len(config.ablations)
    sittings = len(unknown) * exploration.episodes
    again = f", and again without each of {', '.join(config.ablations)}" if config.ablations else ""
    yield (
        f"explore    {len(unknown)} tools in {sittings:,} sittings: at most {sittings * exploration.trials:,} trials "
        f"of {len(config.actors)} attempts{again}{_budgets(config, times + read)}"
    )
    yield from _learned(config)
    arms, tested = config.exploitation.arms, len(names) * config.test
    rounds = 2 * (len(config.batches) + bool(known)) if config.batches else 0
    states = 1 + len(arms) + len(config.ablations) + rounds
    validated = 1 + sum(arm in ("ft", "ranked", "tokens") for arm in arms) + rounds
    yield (
        f"measure    {tested:,} held-out queries {states} times, as many for validation {validated} times: at most "
        f"{count((states + validated) * tested * config.max_tokens)} tokens written"
    )
    trials = sittings * exploration.trials
    asked = _of_exploring(config, times * trials, read * trials)
    budget = None if exploration.max_usd is None else exploration.max_usd * (times + read)
    yield from _endpoints(config.policies, asked, budget)


def _budgets(config: SteConfig, times: int) -> str:
    """What exploring ends at, whatever is left to explore: each time, where it is done several times."""
    limits = {"calls": config.exploration.max_calls, "tokens": config.exploration.max_tokens}
    told = [f"{value:,} {word}" for word, value in limits.items() if value is not None]
    told += [f"${config.exploration.max_usd:g}"] if config.exploration.max_usd is not None else []
    return f"; {'it' if times == 1 else f'each of these {times}'} ends at {', '.join(told)}" if told else ""


def _learned(config: SteConfig) -> Iterator[str]:
    """What is learned from what was found: each arm, each ablation and each round."""
    exploitation, length = config.exploitation, config.model.max_length
    fitted: list[tuple[str, Learning]] = []
    for arm in exploitation.arms:
        if arm != "icl":
            chosen = exploitation.documented if arm == "documented" else None
            fitted.append((arm, chosen or exploitation.learning))
    fitted += [(f"no-{part}", exploitation.learning) for part in config.ablations]
    for name, learning in fitted:
        yield _fit(name, learning.steps, learning.batch_size, length)
    if config.batches:
        learning = exploitation.rounds or exploitation.learning
        count_of = 2 * len(config.batches)
        yield _fit("rounds", count_of * learning.steps, learning.batch_size, length) + ", with rehearsal and without"


def _of_exploring(config: SteConfig, trials: int, read: int) -> Mapping[str, Mapping[str, Asked]]:
    """By endpoint and part, what exploring asks, if no trial is solved before its last actor.

    Args:
        config: of the run.
        trials: that explore.
        read: further ones, of the arm that learns from documentation alone, which nobody judges.
    """
    found: dict[str, dict[str, Asked]] = {}
    turns = config.exploration.max_turns
    if isinstance(config.imaginer, ModelImagination):
        asked = _IMAGINED * (trials + read)
        found[config.imaginer.policy] = {"queries": Asked(asked, asked * config.imaginer.max_tokens)}
    if config.judge is not None:
        asked = _JUDGED * trials * len(config.actors)
        found.setdefault(config.judge, {})["verdicts"] = Asked(asked, asked * 512)
    for place, actor in enumerate(config.actors):
        if actor.policy not in (LIVE, IMAGINED):
            before = found.setdefault(actor.policy, {}).get("attempts", Asked(0, 0))
            more = (trials + read) * turns * (DRAWS if place and actor.temperature else 1)
            found[actor.policy]["attempts"] = Asked(before.requests + more, before.written + more * actor.max_tokens)
    return found


def _toolkengpt(config: ToolkenGptConfig) -> Iterator[str]:
    length = config.model.max_length
    if isinstance(config.model, TinyModel):
        yield _fit("language", config.language.steps, config.language.batch_size, length, "texts")
    where = f"on {config.head_workers} Ray workers" if config.head_workers else "in this process"
    yield (
        f"rows       one a tool, {config.head.epochs} epochs of {config.head.batch_size} texts a step {where}; the "
        "model reads each text once and stays as it is"
    )
    if (feedback := config.feedback) is not None:
        attempts = feedback.rounds * feedback.tasks * feedback.attempts
        written = attempts * (config.max_calls + 1) * config.max_tokens
        yield (
            f"feedback   {feedback.rounds} rounds of {feedback.tasks} questions by {feedback.attempts} attempts: "
            f"{attempts:,} attempts, at most {count(written)} tokens written"
        )
    each = "every question" if config.questions is None else f"{config.questions:,} questions"
    yield f"measure    {each} of each test set, in each state; {config.max_calls} calls of one attempt at most"


def _toolgen(config: ToolGenConfig) -> Iterator[str]:
    length = config.model.max_length
    for name in ("memorisation", "retrieval", "agent"):
        stage = getattr(config, name)
        if stage.steps and (name != "agent" or config.stage_files is not None or config.recorded.runs):
            yield _fit(name, stage.steps, stage.batch_size, length, "conversations")
    if (feedback := config.feedback) is not None:
        yield _fit(
            "feedback", feedback.rounds * feedback.steps, feedback.batch_size, length * feedback.found, "rankings"
        )
    yield f"measure    every held-out request, by {config.beams} beams over tools' tokens, before and after feedback"
    if config.attempts.tasks:
        tokens = config.attempts.tasks * (config.attempts.max_turns + 1) * config.attempts.max_tokens
        yield f"attempts   {config.attempts.tasks:,} held-out requests: at most {count(tokens)} tokens written"
