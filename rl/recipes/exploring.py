"""What ``apprentice explore`` does: the stages of STE in order, and a summary of what each came to."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from executors.errors import ConfigError
from executors.types import MalformedCall, ToolCall
from rl.config import Strict, override, read_yaml, validate
from rl.data.paraphrase import Solved
from rl.data.rehearsal import forgetting, lost
from rl.data.retrieved import Demonstrations
from rl.data.tables import write_text
from rl.evaluation.intervals import Ratio, difference, figures
from rl.explore import Ablations
from rl.recipes.ste import Found, Ste, SteConfig, by_tool, ratios
from rl.run import Run, write_json
from rollouts.types import Group, Task

ABLATIONS = ("execution", "short_term", "long_term", "reflection")
"""What exploring can do without."""

Say = Callable[[str], None]


class Wanted(Strict):
    """Which stages beyond exploring."""

    learn: bool = False
    """Learn what was found, in three ways, and measure each against more of the demonstrations alone."""
    ablations: bool = False
    """Explore and learn again without each part of exploring."""
    rounds: bool = False
    """Learn the tools in rounds, with rehearsal and without."""


def read_config(path: Path, assignments: Sequence[str]) -> tuple[SteConfig, str]:
    """A config of STE with its overrides, and its text.

    Raises:
        ConfigError: it is none.
    """
    content = override(read_yaml(path), assignments)
    if content.get("recipe") != "ste":
        raise ConfigError(f"{path}: its recipe is {content.get('recipe')!r}, and what explores is 'ste'")
    return validate(content, SteConfig, str(path)), path.read_text()


def start(config: SteConfig, text: str, folder: Path, wanted: Wanted, *, resume: bool) -> None:
    """Make the run's folder, or open it again, run the stages, and say where things are."""
    run = Run.start(folder, config_text=text, resolved=config.model_dump(mode="json"), resume=resume)
    explore(config, run, wanted, print)
    print(f"in {folder}: explored.jsonl (trials), examples.jsonl, rejected.jsonl, evaluation/summary.json")


def explore(config: SteConfig, run: Run, wanted: Wanted, say: Say) -> dict[str, Any]:
    """Run the stages; what is on disk from before is not made again.

    Returns:
        What ``evaluation/summary.json`` holds.
    """
    ste = Ste(config, run)
    base = ste.base()
    say(f"base       knows {len(ste.known)} tools by {len(ste.demonstrations)} demonstrations")
    found = ste.explore(base)
    _write(run, found)
    summary: dict[str, Any] = {"seed": config.seed, "explored": counts(found)}
    say(_told(found))
    states: dict[str, Sequence[Group]] = {}
    if wanted.learn or wanted.ablations or wanted.rounds:
        tests = ste.tests()
        states["base"] = ste.evaluate(base, tests, "base")
        _learn(ste, base, found, tests, states, wanted, say)
        if wanted.rounds:
            summary["rounds"] = _rounds(ste, base, found, tests, say)
        summary |= _figures(states, ste)
    write_json(run.path / "evaluation" / "summary.json", summary)
    return summary


def _learn(
    ste: Ste,
    base: Path,
    found: Found,
    tests: Sequence[Task],
    states: dict[str, Sequence[Group]],
    wanted: Wanted,
    say: Say,
) -> None:
    def measure(name: str, path: Path, shown: Demonstrations | None = None) -> None:
        states[name] = ste.evaluate(path, tests, name, shown)
        new = figures(ratios(states[name], ste.unknown))
        old = figures(ratios(states[name], ste.known))
        words = "  ".join(f"{key.replace('_', ' ')} {figure.value:.3f}" for key, figure in new.items())
        say(f"{name:<10} new tools: {words}   known tools: correct {old['correct'].value:.3f}")

    measure("base", base)
    if wanted.learn:
        measure("icl", base, Demonstrations([*ste.demonstrations, *found.solved]))
        measure("ft", ste.fine_tuned(base, found))
        measure("ranked", ste.ranked(base, found))
        measure("control", ste.control(base))
    for part in ABLATIONS if wanted.ablations else ():
        setting = ste.config.exploration.model_copy(update={"without": Ablations(**{part: False})})
        less = ste.explore(base, setting, f"explored-no-{part}")
        measure(f"no-{part}", ste.fine_tuned(base, less, f"ft-no-{part}"))


def _rounds(ste: Ste, base: Path, found: Found, tests: Sequence[Task], say: Say) -> dict[str, Any]:
    """By rehearsal, the matrix of rounds and batches; the first batch is what was known before."""
    told: dict[str, Any] = {}
    batches = [list(ste.known), *ste.config.batches]
    for name, ratio in (("rehearsal", ste.config.exploitation.rehearsal), ("no-rehearsal", 0.0)):
        policies = [base, *ste.rounds(base, found, ratio, name)]
        attempts = [ste.evaluate(path, tests, f"{name}-{number}") for number, path in enumerate(policies)]
        matrix = [
            [figures(ratios(groups, batch))["correct"].value for batch in batches[: number + 1]]
            for number, groups in enumerate(attempts)
        ]
        first, last = (by_tool(groups, ste.known) for groups in (attempts[0], attempts[-1]))
        told[name] = {"matrix": matrix, **forgetting(matrix), "lost": lost(first, last)}
        say(f"{name:<13} after the last round: {' '.join(f'{value:.3f}' for value in matrix[-1])}")
    return told


def _figures(states: Mapping[str, Sequence[Group]], ste: Ste) -> dict[str, Any]:
    """Each state's figures on the tools that were explored and on those known before, and how far ft is over others."""
    told: dict[str, Any] = {}
    for name, groups in states.items():
        told[name] = {
            part: {key: figure.as_json() for key, figure in figures(ratios(groups, tools)).items()}
            for part, tools in (("new", ste.unknown), ("known", ste.known))
        }
        told[name]["tools"] = by_tool(groups, ste.catalog.names)
        refused = lost(by_tool(states["base"], ste.known), told[name]["tools"])
        told[name]["published"] = not refused
    if "ft" in states:
        after = _correct(states["ft"], ste)
        others = [name for name in states if name != "ft"]
        told["ft_over"] = {n: difference([after], [_correct(states[n], ste)]).as_json() for n in others}
    return told


def _correct(groups: Sequence[Group], ste: Ste) -> Ratio:
    return ratios(groups, ste.unknown)["correct"]


def counts(found: Found) -> dict[str, Any]:
    """What one exploration came to, in numbers."""
    own = [trial for trial in found.trials if trial.solved and trial.attempts[-1].source != "imagined"]
    return {
        "trials": len(found.trials),
        "calls": sum(trial.calls for trial in found.trials),
        "tokens": sum(trial.tokens for trial in found.trials),
        "solved_by_the_policy": len(own),
        "solved": len(found.solved),
        "rejected": len(found.rejected),
        "examples": len(found.examples),
    }


def _told(found: Found) -> str:
    number = counts(found)
    return (
        f"explored   {number['trials']} trials, {number['calls']} calls; the policy solved "
        f"{number['solved_by_the_policy']}; {number['solved']} attempts kept, {number['rejected']} rejected; "
        f"{number['examples']} examples"
    )


def _write(run: Run, found: Found) -> None:
    """The examples and the rejected attempts, a line each, for whoever wants to learn from them elsewhere."""
    for name, pairs in (("examples", found.examples), ("rejected", found.rejected)):
        lines = [json.dumps(_line(pair), ensure_ascii=False) + "\n" for pair in pairs]
        write_text(run.path / f"{name}.jsonl", "".join(lines))


def _line(pair: Solved) -> dict[str, Any]:
    task, attempt = pair
    turns = [
        {**_said(call), "observation": seen.content, "status": seen.status}
        for turn in attempt.turns
        for call, seen in zip(turn.calls, turn.observations, strict=True)
    ]
    return {"tool": task.labels.get("tool", ""), "query": task.prompt, "turns": turns, "answer": attempt.answer}


def _said(call: ToolCall | MalformedCall) -> dict[str, Any]:
    if isinstance(call, MalformedCall):
        return {"malformed": call.text}
    return {"call": {"tool": call.tool, "arguments": dict(call.arguments)}}
