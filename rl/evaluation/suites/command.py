"""What ``apprentice evaluate --suite`` does: reads a published file, scores it, and says what came out."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from executors.endpoint import Endpoint, EndpointClient
from executors.errors import ConfigError, DataError
from rewards.arguments import ExtraKeys
from rewards.process import Level
from rl.config import Strict, override, validate
from rl.data.tasks.benchmark import data_folder
from rl.evaluation.suites import (
    bfcl,
    bfcl_predictions,
    funcqa,
    retrieval,
    ste,
    toolalpaca,
    toolbench_command,
    toolkengpt,
)
from rl.evaluation.suites.ste_labels import CachedJudge, Judge, ModelJudge, StrictJudge, published_labels
from rl.evaluation.suites.ste_predictions import read_predictions
from rl.evaluation.suites.toolalpaca_live import LiveOptions, evaluate_live
from rl.run import json_of, write_json
from rl.serving.sources import PolicyConfig
from rollouts.formats.react import Parser

SUITES = ("ste", "toolalpaca", "bfcl", "toolbench", "funcqa", "toolkengpt", "retrieval")
_SHOWN = 5
"""Notes on odd rows that are said aloud; ``--out`` has them all."""


class SteOptions(Strict):
    """How STE's predictions are read and judged; as published by default."""

    parser: Parser = ste.SteSetting().parser
    ground: bool = ste.SteSetting().ground
    extra_keys: ExtraKeys = ste.SteSetting().extra_keys
    edited_golds: bool = ste.SteSetting().edited_golds
    judge: Literal["cached", "strict", "model"] = "cached"
    """Of free-text arguments: the labels of the file and of the published ones, then the string rule; that rule alone;
    or the model at ``endpoint``."""
    labels: str | None = None
    """A folder of prediction files whose labels are looked up; the published ones by default, where they are there."""
    endpoint: dict[str, Any] = Field(default_factory=dict)
    """Of the model: ``base_url``, ``model``, ``key_env``, and what else ``executors.endpoint.Endpoint`` has."""
    kept: str | None = None
    """A file that keeps what the model said: an evaluation that stopped goes on where it was."""

    def setting(self) -> ste.SteSetting:
        """As the evaluation takes it."""
        return ste.SteSetting(
            parser=self.parser, ground=self.ground, extra_keys=self.extra_keys, edited_golds=self.edited_golds
        )

    def build_judge(self) -> Judge:
        """The judge of free-text arguments.

        Raises:
            ConfigError: the endpoint's settings cannot work.
            DataError: a folder or file cannot be read.
        """
        if self.judge == "strict":
            return StrictJudge()
        if self.judge == "cached":
            folder = self._labels()
            return CachedJudge({} if folder is None else published_labels(folder))
        try:
            endpoint = Endpoint(**self.endpoint)
        except TypeError as error:
            raise ConfigError(f"endpoint: {error}; a judge needs at least base_url and model") from error
        return ModelJudge(EndpointClient(endpoint), Path(self.kept) if self.kept else None)

    def _labels(self) -> Path | None:
        if self.labels is not None:
            if not Path(self.labels).is_dir():
                raise DataError(f"labels: there is no folder {self.labels}; it holds prediction files with labels")
            return Path(self.labels)
        folder = _ste_file("saved_results")
        return folder if folder is not None and folder.is_dir() else None


class ToolAlpacaOptions(LiveOptions):
    """How the rule judges; and, where no judged file is named, who plays the evaluation sets, and how."""

    level: Level = "mentioned"
    """Of the rule. Of a judged file, whose agreement is told first; all four are told."""
    policy: PolicyConfig | None = None
    """Who plays, such as ``{kind: huggingface, path: runs/NAME/checkpoints/best}`` or an endpoint."""
    kept: str | None = None
    """A folder for attempts and verdicts: an evaluation that stopped goes on where it was."""


class BfclOptions(Strict):
    """Where the questions are."""

    data: str | None = None
    """A folder in BFCL's layout; that of the data pack by default."""


def evaluate_suite(
    suite: str,
    predictions: Path | None,
    judged: Path | None,
    assignments: Sequence[str],
    *,
    as_json: bool,
    out: Path | None,
) -> None:
    """Score a file by a published evaluation and print the figures.

    Args:
        suite: one of ``SUITES``.
        predictions: the file, for all but ToolAlpaca; of ToolBench, a folder of trees will do.
        judged: the file, for ToolAlpaca, which lets a policy play where there is none; of ToolBench, its own pass-rate
            file, to be recounted.
        assignments: changes to the suite's options, such as ``parser=fair``.
        as_json: print one object.
        out: a file for all that is known, tables and notes included.

    Raises:
        ConfigError: there is no such suite or option, or its file is not named.
        DataError: the file cannot be used.
    """
    if suite == "ste":
        file = _named(predictions, suite, "--predictions")
        told, full = _ste(file, validate(override({}, assignments), SteOptions, "--set"))
    elif suite == "toolalpaca":
        told, full = _toolalpaca(judged, validate(override({}, assignments), ToolAlpacaOptions, "--set"))
    elif suite == "bfcl":
        file = _named(predictions, suite, "--predictions")
        told, full = _bfcl(file, validate(override({}, assignments), BfclOptions, "--set"))
    elif suite == "toolbench":
        options = validate(override({}, assignments), toolbench_command.ToolBenchOptions, "--set")
        told, full = toolbench_command.toolbench(predictions, judged, options)
    elif suite == "funcqa":
        file = _named(predictions, suite, "--predictions")
        full = funcqa.score(file, validate(override({}, assignments), funcqa.FuncQaOptions, "--set"))
        told = _without_tables(full)
    elif suite == "toolkengpt":
        full = toolkengpt.baseline(validate(override({}, assignments), toolkengpt.BaselineOptions, "--set"))
        told = _without_tables(full)
    elif suite == "retrieval":
        file = _named(predictions, suite, "--predictions")
        full = retrieval.score(file, validate(override({}, assignments), retrieval.RetrievalOptions, "--set"))
        told = _without_tables(full)
    else:
        raise ConfigError(f"no suite {suite!r}; there are {', '.join(SUITES)}")
    _note(full["notes"])
    if out is not None:
        write_json(out, full)
    print(json_of(told) if as_json else full["text"])


def _without_tables(full: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in full.items() if isinstance(value, int | float)}


def _ste(file: Path, options: SteOptions) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The eight figures, and everything."""
    predictions = read_predictions(file)
    judge, setting = options.build_judge(), options.setting()
    flags = ste.score(predictions, setting, judge)
    notes = list(predictions.notes)
    if unknown := judge.counts["unknown"]:
        notes.append(f"{unknown} free-text calls have no label: the string rule judged them, which is strict")
    full = ste.report(flags, setting, judge, notes, _batches())
    full["text"] = _ste_text(full)
    return full["totals"], full


def _ste_text(full: Mapping[str, Any]) -> str:
    shown = {"all": full["totals"], "without suspects": full["without_suspects"]}
    intervals = "   ".join(
        f"{name.replace('_', ' ')} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
        for name, one in full["intervals"].items()
    )
    tables = [ste.table(shown), f"95%: {intervals}"]
    if full["batches"]:
        tables.append(ste.table({f"batch {name}": one for name, one in full["batches"].items()}))
    return "\n\n".join([*tables, ste.table(full["apis"])])


def _toolalpaca(file: Path | None, options: ToolAlpacaOptions) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The recount of a judged file; or the figures of a policy that plays."""
    if file is not None:
        read = toolalpaca.read_judged(file)
        figures = toolalpaca.report(read, options.level)
        return figures, {**figures, "notes": list(read.notes), "text": toolalpaca.table(figures)}
    if options.policy is None or options.kept is None:
        raise ConfigError(
            "suite toolalpaca recounts a judged file, --judged FILE, or lets a policy play, --set policy={...} --set "
            "kept=FOLDER"
        )
    plain = LiveOptions(**{name: getattr(options, name) for name in LiveOptions.model_fields})
    full = evaluate_live(options.policy, plain, Path(options.kept), options.level)
    told = {name: value for name, value in full.items() if name != "notes"}
    return told, {**full, "text": "\n".join(f"{name:<18} {value}" for name, value in told.items())}


def _bfcl(file: Path, options: BfclOptions) -> tuple[Mapping[str, Any], dict[str, Any]]:
    items = bfcl.read_items(Path(options.data) if options.data else data_folder("bfcl"))
    answers = bfcl_predictions.read_answers(file, items)
    scored = bfcl_predictions.score(items, answers)
    text = bfcl_predictions.table(scored["figures"])
    return scored["figures"], {**scored, "notes": list(answers.notes), "text": text}


def _batches() -> Sequence[Sequence[str]]:
    """STE's batches of APIs; none where the data is not there."""
    path = _ste_file("CL_batches.json")
    if path is None or not path.is_file():
        return ()
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _ste_file(name: str) -> Path | None:
    try:
        return data_folder("ste") / name
    except DataError:
        return None


def _named(file: Path | None, suite: str, option: str) -> Path:
    if file is None:
        raise ConfigError(f"suite {suite} scores a file; name it with {option} FILE")
    return file


def _note(notes: Sequence[str]) -> None:
    for note in notes[:_SHOWN]:
        print(f"note: {note}", file=sys.stderr)
    if len(notes) > _SHOWN:
        print(f"note: and {len(notes) - _SHOWN} more; --out FILE has them all", file=sys.stderr)
