"""STE: explore tools by trial, error and memory, then learn them for good (Wang et al., 2024).

A policy that was taught some tools meets others. It explores them: queries are imagined from their documentation, it
attempts them, the calls are really run, and what they give is remembered. Attempts that solved their query, and
paraphrases of these, are imitated, ranked above those that failed, or shown as demonstrations. A policy that lost a
tool over it is not published.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.errors import ApprenticeError
from executors.types import MalformedCall, ToolCall
from rl.data.paraphrase import Solved
from rl.data.rehearsal import forgetting
from rl.data.tables import write_text
from rl.evaluation.intervals import Ratio, difference, figures
from rl.exploration import Ablations
from rl.progress import Progress
from rl.recipes.joined import Joined
from rl.recipes.publication import Publication
from rl.recipes.ste_config import IMAGINED, LIVE, Learning, Part, SteConfig
from rl.recipes.ste_exploring import Found
from rl.recipes.ste_report import Columns, report
from rl.recipes.ste_stages import Ste, by_tool, ratios
from rl.run import Run, write_json
from rollouts.types import Group, Task


class UnreachedError(ApprenticeError):
    """A model that explores could not be reached, so that there is less to learn from than there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which stages beyond exploring."""

    learn: bool = False
    """Learn what was found, and measure it against what documentation or demonstrations alone give."""
    ablations: Sequence[Part] = ()
    """Explore and learn again without each of these."""
    rounds: bool = False
    """Learn the tools in rounds, with rehearsal and without."""

    @property
    def nothing(self) -> bool:
        """Whether exploring is all."""
        return not (self.learn or self.ablations or self.rounds)


def train(config: SteConfig, run: Run, progress: Progress) -> dict[str, Any]:
    """Explore, learn, do without each part that the config names, learn in rounds, and write a table.

    Returns:
        What ``evaluation/summary.json`` holds.
    """
    wanted = Wanted(learn=True, ablations=config.ablations, rounds=bool(config.batches))
    with progress.stage(f"STE: {len(config.catalog().names)} tools"):
        return explore(config, run, wanted, progress)


def explore(config: SteConfig, run: Run, wanted: Wanted, progress: Progress) -> dict[str, Any]:
    """Run the stages; what is on disk from before is not made again.

    Returns:
        What ``evaluation/summary.json`` holds.
    """
    with Joined(config.ray, run, progress) as cluster:
        return _explored(Ste(config, run, progress, cluster), wanted)


def _explored(ste: Ste, wanted: Wanted) -> dict[str, Any]:
    config, run, say, base = ste.config, ste.run, ste.progress.line, None
    if not wanted.nothing or any(actor.policy == LIVE for actor in config.actors):
        base = ste.base()
        say(f"base       knows {len(ste.known)} tools by {len(ste.demonstrations)} demonstrations")
    found = ste.explore(base)
    _write(run, found)
    summary: dict[str, Any] = {"seed": config.seed, "explored": counts(found)}
    say(_told(found))
    if told := _early(ste, learning=not wanted.nothing):
        say(told)
    if base is not None and not wanted.nothing:
        study = _Study(ste, base, found, ste.tests())
        study.learn(wanted)
        if wanted.rounds:
            summary["rounds"] = study.rounds()
        summary |= study.figures()
        summary["published"] = study.publish()
        columns: Columns = {"new": ste.unknown, "known": ste.known}
        write_text(run.path / "evaluation" / "report.md", report([study.states], columns, [summary]))
    write_json(run.path / "evaluation" / "summary.json", summary)
    return summary


def evaluate_run(run: Run, config: SteConfig, path: Path, split: str, name: str) -> dict[str, Ratio]:
    """The figures of a run's checkpoint on held-out queries: of all tools, of those explored, and of those known.

    Args:
        run: its folder.
        config: its own.
        path: of the checkpoint.
        split: ``validation`` or ``test``.
        name: that the attempts are kept under.
    """
    progress = Progress()
    ste = Ste(config, run, progress, Joined(config.ray, run, progress))
    held_out = ste.tests("test" if split == "test" else "validation")
    return _ratios(ste, ste.evaluate(path, held_out, name))


def _ratios(ste: Ste, groups: Sequence[Group]) -> dict[str, Ratio]:
    parts = {"": ste.catalog.names, "/new": ste.unknown, "/known": ste.known}
    return {
        f"{key}{part}": ratio for part, tools in parts.items() if tools for key, ratio in ratios(groups, tools).items()
    }


class _Study:
    """The states of a policy on the same held-out queries."""

    def __init__(self, ste: Ste, base: Path, found: Found, tests: Sequence[Task]) -> None:
        self.ste = ste
        self.base = base
        self.tests = tests
        self.say = ste.progress.line
        self.found = self._learnable(found)
        self.states: dict[str, Sequence[Group]] = {}
        self.files: dict[str, str] = {}
        """By state, what its attempts are kept as."""
        self.learned: dict[str, Path] = {}
        """What may be published, by name."""

    def learn(self, wanted: Wanted) -> None:
        """Every arm, and every ablation."""
        ste, found, base = self.ste, self.found, self.base
        self._measure("base", base, "base")
        arms = ste.config.exploitation.arms if wanted.learn else []
        if "icl" in arms:
            edition = ste.edition("icl", found)
            self._keep("icl", ste.evaluate(base, self.tests, edition, ste.demonstrated(found)), edition)
        for name, fit in (("ft", ste.fine_tuned), ("ranked", ste.ranked), ("tokens", ste.tokens)):
            if name in arms:
                edition = ste.edition(name, found)
                self.learned[edition] = fit(base, found, edition)
                self._measure(name, self.learned[edition], edition)
        if "control" in arms and ste.demonstrations:
            self._measure("control", ste.control(base), "control")
        if "documented" in arms:
            self._imitate("documented", ste.read(), ste.config.exploitation.documented)
        for part in wanted.ablations:
            setting = ste.config.exploration.model_copy(update={"without": Ablations(**{part: False})})
            self._imitate(f"no-{part}", ste.explore(base, setting, f"explored-no-{part}"))

    def rounds(self) -> dict[str, Any]:
        """By rehearsal, the matrix of rounds and batches; the first batch is what was known before, if anything was."""
        ste, told = self.ste, {}
        batches = [*([list(ste.known)] if ste.known else []), *ste.config.batches]
        before = [self.base] if ste.known else []
        held_out = ste.tests("validation")
        for name, ratio in (("rehearsal", ste.config.exploitation.rehearsal), ("no-rehearsal", 0.0)):
            edition = ste.edition(name, self.found)
            policies = [*before, *ste.rounds(self.base, self.found, ratio, edition)]
            attempts = [ste.evaluate(path, self.tests, f"{edition}-{number}") for number, path in enumerate(policies)]
            matrix = [
                [figures(ratios(groups, batch))["correct"].as_json() for batch in batches[: number + 1]]
                for number, groups in enumerate(attempts)
            ]
            validated = [
                ste.evaluate(path, held_out, f"{edition}-{number}-validation") for number, path in enumerate(policies)
            ]
            gate = self._gate(Path("rounds") / edition)
            gate.forget()  # a run that goes on offers all rounds again, the first of them not after the last
            published = []
            for number, path in enumerate(policies):
                there = [tool for batch in batches[: number + 1] for tool in batch]
                missed = gate.offer(f"{edition}-{number}", path, by_tool(validated[number], there))
                published.append({"round": number, "published": not missed, "lost": sorted(missed)})
            values = [[cell["value"] for cell in row] for row in matrix]
            told[name] = {"matrix": matrix, **forgetting(values), "gate": published}
            self.say(f"{name:<13} after the last round: {' '.join(f'{value:.3f}' for value in values[-1])}")
        return told

    def publish(self) -> dict[str, Any]:
        """Offer what was learned to the gate, the best first, by validation queries; what is in use, and what is not.

        The base policy is in use until another one may follow it.
        """
        ste, gate = self.ste, self._gate(Path("checkpoints"))
        tools = ste.catalog.names
        held_out = ste.tests("validation")
        scores = {
            name: by_tool(ste.evaluate(path, held_out, f"{name}-validation"), tools)
            for name, path in {"base": self.base, **self.learned}.items()
        }
        if gate.told()["name"] is None:  # or its file was removed: what is in use is then not known
            gate.offer("base", self.base, {tool: scores["base"][tool] for tool in ste.known})
        best = sorted(self.learned, key=lambda name: -round(sum(scores[name].values()), 6))  # of equals the first
        for name in best:
            if gate.told()["name"] == name or not gate.offer(name, self.learned[name], scores[name]):
                break
        told = gate.told()
        for one in told["refused"]:
            self.say(f"withheld   {one['name']}: it lost {', '.join(one['lost'])}")
        self.say(f"published  {told['name']}")
        return told

    def figures(self) -> dict[str, Any]:
        """Each state's figures on the tools that were explored and on those known, and how far ft is over others."""
        ste = self.ste
        told: dict[str, Any] = {"by_tool": {}}
        for name, groups in self.states.items():
            told[name] = {"n": len(groups), "attempts": f"{self.files[name]}.jsonl"} | {
                key: figure.as_json() for key, figure in figures(_ratios(ste, groups)).items()
            }
            told["by_tool"][name] = by_tool(groups, ste.catalog.names)
        if "ft" in self.states:
            after = ratios(self.states["ft"], ste.unknown)["correct"]
            others = {name: ratios(groups, ste.unknown)["correct"] for name, groups in self.states.items()}
            told["ft_over"] = {n: difference([after], [one]).as_json() for n, one in others.items() if n != "ft"}
        return told

    def _learnable(self, found: Found) -> Found:
        kept = self.ste.without_held_out(found)
        if left_out := len(found.examples) - len(kept.examples):
            self.say(f"held out   {left_out} examples make calls that held-out queries mean, and are not learned from")
        return kept

    def _gate(self, folder: Path) -> Publication:
        return Publication(self.ste.run.path / folder, self.ste.config.exploitation.tolerance)

    def _imitate(self, name: str, found: Found, learning: Learning | None = None) -> None:
        """Imitate what was just found in another way, to compare."""
        if told := _early(self.ste, learning=True):
            self.say(told)
        found = self._learnable(found)
        edition = self.ste.edition(name, found, learning)
        self._measure(name, self.ste.fine_tuned(self.base, found, edition, learning), edition)

    def _measure(self, name: str, path: Path, file: str) -> None:
        if name not in self.states:
            self._keep(name, self.ste.evaluate(path, self.tests, file), file)

    def _keep(self, name: str, groups: Sequence[Group], file: str) -> None:
        self.states[name] = groups
        self.files[name] = file
        parts = [(what, tools) for what, tools in (("new", self.ste.unknown), ("known", self.ste.known)) if tools]
        words = [
            f"{what} tools: correct {figures(ratios(groups, tools))['correct'].value:.3f}" for what, tools in parts
        ]
        self.say(f"{name:<15} {'   '.join(words)}")


def _early(ste: Ste, *, learning: bool) -> str:
    """What ended early of the last exploring, in words; empty where nothing did.

    Raises:
        UnreachedError: a model could not be reached, and what was found is to be learned from.
    """
    if not ste.given_up:
        return ""
    told = f"{len(ste.given_up)} sittings ended early; {ste.given_up[0]}; --resume holds them"
    if ste.unreached and learning:
        raise UnreachedError(told)
    return told


def counts(found: Found) -> dict[str, Any]:
    """What one exploration came to, in numbers."""
    own = [trial for trial in found.trials if trial.solved and trial.attempts[-1].source != IMAGINED]
    return {
        "trials": len(found.trials),
        "calls": sum(trial.calls for trial in found.trials),
        "tokens": sum(one.tokens for one in (*found.trials, *found.reviews)),
        "usd": round(sum(one.cost for one in (*found.trials, *found.reviews)), 6),
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


def _line(pair: Solved) -> Mapping[str, Any]:
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
