"""What ``apprentice evaluate --suite toolbench`` does with its files."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.endpoint import Endpoint, EndpointClient
from executors.errors import ConfigError
from rl.config import Strict
from rl.evaluation.suites import toolbench as rates
from rl.evaluation.suites.toolbench_judges import ModelJudge, RuleJudge


class ToolBenchOptions(Strict):
    """How answers are judged."""

    judge: Literal["rule", "model"] = "rule"
    """The model at ``endpoint``; or a rule that needs none, whose figures compare with nothing published."""
    endpoint: dict[str, Any] = Field(default_factory=dict)
    """Of the model: ``base_url``, ``model``, ``key_env``, and what else ``executors.endpoint.Endpoint`` has."""
    kept: str | None = None
    """A file that keeps what the model said: an evaluation that stopped goes on where it was."""
    structured: bool = True
    """Whether the endpoint is asked to hold verdicts to a schema."""
    times: int = Field(default=3, gt=0)
    """Independent verdicts on each request (``evaluate_times``)."""
    against: str | None = None
    """Another system's answers, whose ways are compared with these."""
    rounds: int = Field(default=3, gt=0)
    """Votes on each request."""
    method: str = ""
    """Of folders, which trees are read, such as ``CoT@1``."""

    def build_judge(self) -> rates.Judge:
        """The judge.

        Raises:
            ConfigError: the endpoint's settings cannot work.
            DataError: the kept file holds something else.
        """
        if self.judge == "rule":
            return RuleJudge()
        try:
            endpoint = Endpoint(**self.endpoint)
        except TypeError as error:
            raise ConfigError(f"endpoint: {error}; a judge needs at least base_url and model") from error
        kept = Path(self.kept) if self.kept else None
        return ModelJudge(EndpointClient(endpoint), kept, structured=self.structured)


def toolbench(
    predictions: Path | None, judged: Path | None, options: ToolBenchOptions
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The figures, and everything.

    Args:
        predictions: answers to be judged.
        judged: ToolBench's own pass-rate file, to be recounted instead.
        options: how answers are judged.

    Raises:
        ConfigError: neither file is named.
        DataError: a file cannot be used.
    """
    if judged is not None:
        recount = rates.recounted(judged)
        return _told(recount, None, {})
    if predictions is None:
        raise ConfigError("suite toolbench judges answers, --predictions FILE, or recounts its verdicts, --judged FILE")
    judge = options.build_judge()
    ours = rates.read_answers(predictions, options.method)
    theirs = rates.read_answers(Path(options.against), options.method) if options.against else []
    passed, won = asyncio.run(_judged(ours, theirs, judge, options))
    return _told(passed, won, dict(judge.counts))


async def _judged(
    ours: list[rates.Answered], theirs: list[rates.Answered], judge: rates.Judge, options: ToolBenchOptions
) -> tuple[rates.PassRate, rates.WinRate | None]:
    try:
        passed = await rates.pass_rate(ours, judge, options.times)
        if not theirs:
            return passed, None
        other = await rates.pass_rate(theirs, judge, options.times)
        return passed, await rates.win_rate(ours, theirs, (passed, other), judge, options.rounds)
    finally:
        await judge.close()


def _told(
    passed: rates.PassRate, won: rates.WinRate | None, counts: dict[str, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    figures = passed.as_json() | ({"against": won.as_json()} if won else {})
    text = (
        f"solved {figures['pass_rate']} % of {figures['n']} requests, deviation {figures['deviation']} over "
        f"{len(figures['runs'])} runs; verdicts: {figures['solved']} solved, {figures['unsure']} unsure, "
        f"{figures['unsolved']} unsolved, {figures['error']} errors"
    )
    if won:
        against = figures["against"]
        text += (
            f"\nwins {against['win_rate']} %, loses {against['lose_rate']} %, ties {against['tie_rate']} % of "
            f"{against['n']}; {against['errors']} could not be judged"
        )
    notes = [f"the judge failed {figures['error']} times; those verdicts are left out"] if figures["error"] else []
    each = {"verdicts": dict(passed.verdicts), "votes": dict(won.votes) if won else {}, "judge": counts}
    return figures, {**figures, **each, "notes": notes, "text": text}
