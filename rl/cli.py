"""The command: ``apprentice``; what needs a config is here, the other verbs in ``rl.verbs``.

Heavy modules are imported by the command that needs them, so that ``--help`` answers at once.
"""

import errno
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from executors.errors import ApprenticeError, ConfigError
from rl.verbs import COMPLETE, Checkpoint
from rl.verbs import app as further

if TYPE_CHECKING:
    from rl.recipes.parts import TriceConfig

app = typer.Typer(
    name="apprentice",
    help="Teach open language models to use tools, by trial, error and execution feedback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[
    Path,
    typer.Argument(help="A config, such as configs/trice/tiny.yaml, or a Python file of yours.", show_default=False),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to it: dotted keys, such as improvement.rounds=10.")
]


app.add_typer(further)


@app.callback()
def options(
    unsafe_local_exec: Annotated[
        bool, typer.Option("--unsafe-local-exec", help="Run model-written code even where no sandbox holds.")
    ] = False,
) -> None:
    """Teach open language models to use tools, by trial, error and execution feedback."""
    if unsafe_local_exec:
        os.environ["APPRENTICE_UNSAFE_LOCAL_EXEC"] = "1"


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write, such as my_tools.py.", show_default=False)],
) -> None:
    """Write a file with a tool, tasks and a reward of your own."""
    from rl.recipes.own import write_starter

    write_starter(path)
    print(f"wrote {path}: a tool, its tasks and a reward. Next:\n  apprentice check {path}\n  apprentice train {path}")


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="The run's folder; storage/name by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the config's.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several runs and their pooled summary, such as 0,1,2.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="Continue though the tasks are not those it began with.")
    ] = False,
    pages: Annotated[bool, typer.Option(help="Serve pages about the run while it goes on, on this machine.")] = True,
) -> None:
    """Train a policy as a config says."""
    assignments = list(overrides or []) + ([f"seed={seed}"] if seed is not None else [])
    if seeds is None:
        _train_one(config, assignments, run_dir, resume, allow_changed_data, pages)
        return
    loaded, _ = _load(config, assignments, verb="train")
    base = run_dir or _storage(loaded) / loaded.name
    folders = [base.with_name(f"{base.name}-seed{number}") for number in _numbers(seeds)]
    for number, folder in zip(_numbers(seeds), folders, strict=True):
        again = resume and folder.exists()
        _train_one(config, [*assignments, f"seed={number}"], folder, again, allow_changed_data, pages)
    if loaded.recipe == "ste":
        from rl.recipes.ste_report import pool

        print(pool(folders, base.with_name(f"{base.name}-seeds.md")))
        return
    from rl.evaluation.evaluate import PairRanking
    from rl.evaluation.seeds import pool_kept, pool_seeds, table, tall

    pooled = base.with_name(f"{base.name}-seeds.json")
    if loaded.recipe in ("toolkengpt", "toolgen"):
        for name, figures in pool_kept(folders, pooled).items():
            print(f"{name}\n{tall(figures)}\n")
        print(pooled)
        return
    if not hasattr(loaded, "evaluation") or isinstance(loaded.evaluation, PairRanking):
        print(f"such runs are not pooled; each has its own summary: {', '.join(map(str, folders))}")
        return
    print(table(pool_seeds(folders, loaded.evaluation, pooled)), f"\n{pooled}")


@app.command()
def plan(config: ConfigPath, overrides: Overrides = None) -> None:
    """Say what a config would take: memory, steps, tokens, costs.

    And processes, and which settings nothing reads; nothing is started.
    """
    loaded, _ = _load(config, list(overrides or []), verb=None)
    from rl.planning.plan import plan as lines

    for line in lines(loaded):
        print(line)


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="Arms and seeds, such as configs/trice/grid.yaml.", show_default=False)],
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the runs; storage/name by default.")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
) -> None:
    """Run a grid of arms and seeds, and write one table.

    The same command goes on where it stopped.
    """
    from rl.sweep.grid import read_grid
    from rl.sweep.sweep import sweep as run_grid

    loaded = read_grid(grid, list(overrides or []))
    folder = run_dir or _storage(loaded) / loaded.name
    path = run_grid(loaded, folder, lambda base, changes: _load(Path(base), list(changes))[0], print, parallel=parallel)
    print(path)


@app.command()
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="A run's folder, such as runs/trice-tiny.")] = None,
    checkpoint: Checkpoint = "best",
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    suite: Annotated[
        str | None,
        typer.Option(help="By a published one: ste, toolalpaca, bfcl, toolbench, funcqa, toolkengpt or retrieval."),
    ] = None,
    predictions: Annotated[Path | None, typer.Option(help="Of a suite: the file to score.")] = None,
    judged: Annotated[Path | None, typer.Option(help="Of toolalpaca: a file of its judge.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Of the suite, such as parser=fair.")] = None,
    out: Annotated[Path | None, typer.Option(help="Of the suite: a JSON file for tables and notes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
) -> None:
    """Play a run's held-out tasks, or score a published evaluation.

    In this process, with any checkpoint of the run; or a file of predictions by --suite.
    """
    if suite is not None:
        from rl.evaluation.suites.command import evaluate_suite

        evaluate_suite(suite, predictions, judged, settings or [], as_json=as_json, out=out)
        return
    if run is None:
        raise ConfigError("name a run's folder, such as runs/trice-tiny; or --suite and a file to score")
    from rl.evaluation.intervals import figures
    from rl.recipes.trained import evaluate_checkpoint
    from rl.run import json_of

    shown = figures(evaluate_checkpoint(run, checkpoint, split))
    if as_json:
        print(json_of({name: figure.as_json() for name, figure in shown.items()}))
        return
    for name, figure in shown.items():
        print(f"{name:<14} {figure.value:7.3f}   95% [{figure.low:.3f}, {figure.high:.3f}]")


@app.command()
def explore(
    config: Annotated[Path, typer.Argument(help="A config, such as configs/ste/tiny.yaml.", show_default=False)],
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="The run's folder; storage/name by default.")] = None,
    learn: Annotated[bool, typer.Option("--learn", help="Learn what was found, and measure it.")] = False,
    ablations: Annotated[bool, typer.Option("--ablations", help="The same without each part of exploring.")] = False,
    rounds: Annotated[
        bool, typer.Option("--rounds", help="Learn the tools in rounds, with and without rehearsal.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
) -> None:
    """Explore tools by trial, error and memory (STE)."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rl.recipes.exploring import read_config, start

    loaded, text = read_config(config, overrides or [])
    folder = run_dir or _folder(_storage(loaded) / loaded.name, resume)
    start(loaded, text, folder, learn=learn, ablations=ablations, rounds=rounds, resume=resume)


@app.command()
def check(
    config: Annotated[Path | None, typer.Argument(help="A config; without one, the machine is checked.")] = None,
    overrides: Overrides = None,
    hostile: Annotated[Path | None, typer.Option(help="Run a corpus of hostile calls (JSON lines) instead.")] = None,
    sandbox: Annotated[str, typer.Option(help="auto, ns or ll: which sandbox hostile programs run in.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print an object for each hostile call.")] = False,
) -> None:
    """Check a config and its data without training.

    Every key and source, a prompt as it is read, the tools on good and bad calls, the rewards on four kinds of attempt.
    """
    from rl.checks import check_hostile, sandbox_in_force

    if hostile is not None:
        if not check_hostile(hostile, sandbox, as_json):
            raise SystemExit(1)
        return
    if config is None:
        print(sandbox_in_force(sandbox))
        return
    loaded, _ = _load(config, list(overrides or []), verb=None, here=True)
    if not hasattr(loaded, "tasks"):
        print(sandbox_in_force(sandbox))
        print(f"config     {loaded.name}: recipe {loaded.recipe}; every key is known, and every file is there")
        from rl.recipes.checked import stage_checks

        for line in stage_checks(loaded):
            print(line)
        return
    from rl.recipes.prepared import prepare

    benchmark = prepare(loaded)
    print(sandbox_in_force(sandbox))
    from rl.recipes.trained import check_config
    from rl.recipes.trial import trials

    for line in check_config(loaded, benchmark):
        print(line)
    for line in trials(loaded, benchmark, colour=sys.stdout.isatty()):
        print(line)


def _train_one(
    path: Path,
    assignments: list[str],
    run_dir: Path | None,
    resume: bool,
    allow_changed_data: bool = False,
    pages: bool = True,
) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config, text = _load(path, assignments, verb="train", here=not resume)
    folder = run_dir or _folder(_storage(config) / config.name, resume)
    from rl.data.tasks.benchmark import digests
    from rl.recipes.prepared import prepare
    from rl.recipes.registry import trained_alone

    benchmark = prepare(config) if hasattr(config, "tasks") else None
    from rl.failure import Witness, explain, witnessed, write_failure
    from rl.learner.remote import LearnerFailedError
    from rl.pages.watch import watched
    from rl.progress import Progress
    from rl.recipes.lengths import require_lengths
    from rl.recipes.trice import train as train_trice
    from rl.run import Run
    from rollouts.remote import RolloutsFailedError

    if benchmark is not None and not resume:
        require_lengths(config, benchmark)
    own = trained_alone(config.recipe)
    resolved = config.model_dump(mode="json")
    may_differ = getattr(config, "MAY_DIFFER", ())
    run = Run.start(folder, config_text=text, resolved=resolved, resume=resume, may_differ=may_differ)
    if benchmark is not None:
        run.require_data(digests(benchmark), allow_changed=allow_changed_data)
    progress, witness = Progress(), Witness()
    progress.head(config.name, folder, resume)
    try:
        with witnessed(witness), watched(folder, progress.line, wanted=pages):
            if benchmark is None:
                assert own is not None
                summary = own(config, run, progress)
                from rl.evaluation.report import write_report

                write_report(run, summary)
                progress.line(f"its figures are in {folder}/evaluation/summary.json")
                progress.line(f"look at    {folder}/report.html")
                return
            summary = train_trice(config, benchmark, run, progress)
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != signal.SIGTERM:  # which Ray makes of being told to stop
            raise
        command = shlex.join(["apprentice", "train", str(path), *assignments, "--run-dir", str(folder), "--resume"])
        print(f"\nstopped; nothing is lost. This continues it:\n  {command}", file=sys.stderr)
        raise SystemExit(130) from None
    except (LearnerFailedError, RolloutsFailedError) as error:
        failure = explain(error, folder / "logs", witness)
        print("\n".join([*failure.lines(), f"kept in    {write_failure(failure, folder)}"]), file=sys.stderr)
        raise SystemExit(failure.exit_code) from None
    progress.close(folder, summary)


def _load(
    path: Path, assignments: list[str], *, verb: str | None = "run", here: bool = False
) -> "tuple[TriceConfig, str]":
    """A config and its text; before anything heavy is imported, and with every mistake in one message.

    Args:
        path: of the config, or of a Python file of the user's.
        assignments: laid over it.
        verb: what is to be done with it, where not every recipe will do: ``train``, or ``run`` on a cluster.
        here: whether to see too that this machine has what the config names, and that nothing in it is without effect.
    """
    from rl.config import examine, override, read_yaml, told
    from rl.recipes.own import own_content
    from rl.recipes.registry import any_config_class, config_class

    content = override(own_content(path) if path.suffix == ".py" else read_yaml(path), assignments)
    recipe, origin = content.get("recipe"), str(path)
    model: Any = any_config_class(recipe, origin)
    if verb is not None:
        model = config_class(recipe, origin, alone=verb == "train")
    found, config = examine(content, model)
    if here and config is not None:
        from rl.planning.mistakes import mistakes

        found += mistakes(config)
    if config is None or found:
        raise ConfigError(told(origin, found))
    return config, path.read_text()


def _storage(config: Any) -> Path:
    """Where runs are kept; in a submitted job, whose own folder is thrown away, a relative path is the home's."""
    storage = Path(config.storage).expanduser()
    if not storage.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return Path.home() / "apprentice" / storage
    return storage


def _folder(base: Path, resume: bool) -> Path:
    """A folder that no run has yet; or, to resume, the newest one of that name."""
    number, folder, newest = 1, base, base
    while folder.exists():
        number, newest = number + 1, folder
        folder = base.with_name(f"{base.name}-{number}")
    return newest if resume else folder


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {text!r} is no list of numbers; write them as 0,1,2") from error


def _cause(error: BaseException) -> BaseException:
    """What went wrong in another process, without Ray's traceback of it; an error of this process as it is."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


def _interrupt(*_: Any) -> None:
    """Being told to stop is the same as Ctrl-C."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; a user's mistake ends it with one paragraph and an exit code that says its kind."""
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice is for those who call it by hand
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not Path("/dev/nvidiactl").exists():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns in every process
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where a user's own tools are
    if COMPLETE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    try:
        app()
    except ApprenticeError as error:
        print(f"error: {_cause(error)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        told = f"the disk is full ({error.filename or 'no file is named'}); nothing that was told as done is lost"
        print(f"error: {told}: free some space, then continue with --resume", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
