"""The verbs of the command that need no config: about runs, files, clusters and the machine.

Heavy modules are imported by the verb that needs them, so that ``--help`` answers at once.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from executors.errors import ApprenticeError, ConfigError, DataError

app = typer.Typer()

COMPLETE = "_APPRENTICE_COMPLETE"
"""The variable by which a shell asks for completions."""

Engine = Literal["here", "llm"]
Tracking = Literal["trackio", "wandb"]
RunPath = Annotated[Path, typer.Argument(help="A run's folder, such as runs/trice-tiny.", show_default=False)]
Checkpoint = Annotated[str, typer.Option(help="Which of the run's checkpoints: best, or step-N.")]


@app.command()
def serve(
    runs: Annotated[list[Path], typer.Argument(help="A run's folder, or several.", show_default=False)],
    checkpoint: Annotated[str, typer.Option(help="What answers by default: best, newest, or its name.")] = "best",
    follow: Annotated[bool, typer.Option("--follow", help="Take newer weights as the run publishes them.")] = False,
    split: Annotated[str | None, typer.Option(help="Of several runs: each one's share of requests, as 90,10.")] = None,
    adapter: Annotated[list[str] | None, typer.Option(help="A further LoRA adapter, as NAME=FOLDER.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="Further models kept in memory when requests name them.")] = 1,
    execute: Annotated[bool, typer.Option("--execute", help="Run the tools here for clients who ask for it.")] = False,
    engine: Annotated[Engine, typer.Option(help="What holds the weights: here, or ray.serve.llm on GPUs.")] = "here",
    engine_option: Annotated[list[str] | None, typer.Option(help="Of vLLM's engine, as NAME=VALUE.")] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Engines of ray.serve.llm that share the requests.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Serve runs' policies behind an OpenAI-compatible endpoint.

    On Ray Serve; docs/serving.md has the routes and every field.
    """
    from rl.recipes.served import Wanted, serve_runs

    serve_runs(
        runs,
        Wanted(
            checkpoint,
            follow=follow,
            keep=keep,
            execute=execute,
            adapters=tuple(adapter or ()),
            llm=engine == "llm",
            options=tuple(engine_option or ()),
            replicas=replicas,
        ),
        split=split,
        host=host,
        port=port,
    )


@app.command()
def chat(run: RunPath, checkpoint: Checkpoint = "best") -> None:
    """Ask a run's policy questions; its tools are really called."""
    from rl.recipes.served import chat_with

    chat_with(run, checkpoint)


@app.command()
def ui(
    storage: Annotated[Path, typer.Argument(help="A folder of runs, or a run's own.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless told otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8266,
) -> None:
    """Show runs on pages, on Ray Serve.

    Curves, every candidate of a task side by side, tools, comparisons.
    """
    from rl.pages.remote import serve_pages

    if not storage.is_dir():
        raise ConfigError(f"there is no folder {storage}; name that of your runs, such as 'apprentice ui runs'")
    serve_pages(storage, host=host, port=port)


@app.command()
def verify(
    run: RunPath, as_json: Annotated[bool, typer.Option("--json", help="Print one object for each promise.")] = False
) -> None:
    """Check from a run's files that nothing was lost or made twice.

    And that nothing is torn; whenever and however it stopped.
    """
    from rl.evaluation.verify import verify as check_promises
    from rl.run import Run

    findings = check_promises(Run.open(run))
    for finding in findings:
        if as_json:
            print(json.dumps({"promise": finding.promise, "kept": finding.kept, "detail": finding.detail}))
        else:
            print(f"{'kept' if finding.kept else 'BROKEN':<7} {finding.promise}: {finding.detail}")
    if not all(finding.kept for finding in findings):
        raise SystemExit(DataError.exit_code)


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(help="A run's folder, a log of groups in one, or ToolBench's trees.", show_default=False)
    ],
    format: Annotated[
        str,
        typer.Argument(
            help="model or adapter; or sft, prompt_completion, preference, ranked, rrhf, verl, skyrl, atif, answers, "
            "agent, sharegpt."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(help="FILE.jsonl, .parquet, or .json; of model, adapter, atif a folder.", show_default=False),
    ],
    checkpoint: Annotated[str, typer.Option(help="Of model and adapter: best, newest, or step-N.")] = "best",
    pairs: Annotated[str, typer.Option(help="Of preference: extremes, or all.")] = "extremes",
    margin: Annotated[float, typer.Option(help="Of preference: pairs of rewards no further apart are left out.")] = 0.0,
    text: Annotated[bool, typer.Option("--text", help="The run's own text instead of messages.")] = False,
    env_class: Annotated[str, typer.Option(help="Of skyrl: the environment.")] = "apprentice",
    clean: Annotated[
        bool, typer.Option("--clean", help="Of agent and sharegpt: every way without a failed call or an excuse.")
    ] = False,
) -> None:
    """Write a run's policy or groups in another project's format.

    The policy as a plain model or adapter; ranked groups, or trees, as rows.

    docs/data.md says what each format keeps.
    """
    if format in ("model", "adapter"):
        from rl.recipes.exported_model import export_model

        written = export_model(source, format, out, checkpoint)
        print(f"{written.id} of {source} in {out}")
        return
    from rl.data.exports import SEARCHED, ExportOptions, export_searches
    from rl.data.exports import export as write
    from rl.data.searches import are_trees, read_trees
    from rl.data.ways import CLEAN, Kept
    from rl.recipes.logged import Logged

    kept = CLEAN if clean else Kept()
    if format in SEARCHED and are_trees(source):
        exported = export_searches(read_trees(source), format, out, kept)
    else:
        logged = Logged(source)
        options = ExportOptions(pairs=pairs, margin=margin, text=text, env_class=env_class, kept=kept)
        exported = write(logged.groups(), logged.setting, format, out, options)
        for damage in logged.damage:
            print(damage, file=sys.stderr)
    print(f"{exported.rows} rows of {exported.groups} groups in {out}")
    for reason, count in exported.left_out.items():
        print(f"{count} groups left out: {reason}")


@app.command()
def track(
    run: RunPath,
    to: Annotated[Tracking, typer.Option(help="Which tracker.")] = "trackio",
    project: Annotated[str, typer.Option(help="That the run is put into.")] = "apprentice",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
    every: Annotated[int, typer.Option(min=1, help="Of so many ranked groups one is sent.")] = 20,
) -> None:
    """Send a run's curves and sampled episodes to a tracker.

    Live or afterwards; the same command goes on where it stopped.
    """
    from rl.recipes.logged import Logged
    from rl.run import Run
    from rl.tracking import Tracker
    from rl.tracking import follow as send_on

    opened = Run.open(run)
    try:
        logged = Logged(run)
    except ApprenticeError:  # of another recipe, or not so far yet: its curves alone
        logged = None
    tracker = Tracker(to, project, opened, logged.setting if logged else None, every)
    groups = logged.groups if logged else None
    sent = send_on(tracker, groups) if follow else tracker.send(groups)
    tracker.finish()
    print(f"{run}: {sent.lines} lines of metrics and every {every}th of {sent.groups} groups are in {to}")


@app.command(name="import")
def import_file(
    format: Annotated[str, typer.Argument(help="rrhf, trice, toolalpaca or toolbench.")],
    source: Annotated[Path, typer.Argument(help="The file to read; of toolbench, a folder too.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="FILE.jsonl or FILE.parquet.", show_default=False)],
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave them out, and name them.")] = False,
) -> None:
    """Read attempts that others recorded, to learn from them.

    They come into a file that tasks of kind 'ranked' are read from.
    """
    from rl.data.imports import import_rows
    from rl.data.ranked import FEATURES
    from rl.data.tables import write_rows

    imported = import_rows(source, format, skip_bad_rows=skip_bad_rows)
    write_rows(out, imported.rows, FEATURES)
    for reason in imported.rejected:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(imported.rows)} tasks in {out}, with attempts of {imported.authors}")
    print(f"tasks: {{kind: ranked, path: {out}}} reads it; each of these is a policy that a source can play")


@app.command()
def status(
    storage: Annotated[Path, typer.Argument(help="A folder of runs, or a run's own.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one object for each run.")] = False,
) -> None:
    """Say how the runs in a folder are going."""
    from dataclasses import asdict

    from rl.pages.shelf import Shelf

    if not storage.is_dir():
        raise ConfigError(f"there is no folder {storage}; name that of your runs, such as 'apprentice status runs'")
    shelf = Shelf(storage)
    for name in shelf.names():
        card = shelf.card(name)
        if as_json:
            print(json.dumps(asdict(card)))
            continue
        moved = "  ".join(f"{key} {before:.3f} -> {after:.3f}" for key, (before, after) in card.headline.items())
        print(f"{card.name:<28} {card.status:<9} {card.stage:<12} {card.age:>7.0f} s ago   {moved}")


@app.command()
def stop(
    run: RunPath,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for its end.")] = 60.0,
    address: Annotated[
        str | None, typer.Option(help="Of a submitted job: the cluster's dashboard; by default RAY_ADDRESS.")
    ] = None,
) -> None:
    """Stop a run, as Ctrl-C would; --resume continues it."""
    import subprocess

    from rl.driver import Driver, stop_job
    from rl.driver import stop as stop_run

    driver = Driver.of(run)
    if driver.job is None:
        print(stop_run(run, wait=wait))
        return
    raise SystemExit(subprocess.run(stop_job(driver, address), check=False).returncode)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.", show_default=False)],
) -> None:
    """Print what lets a shell complete verbs and options.

    docs/operations.md says where it goes.
    """
    from typer._completion_shared import get_completion_script

    if shell not in ("bash", "zsh", "fish"):
        raise ConfigError(f"no completion for {shell!r}; there is bash, zsh and fish")
    print(get_completion_script(prog_name="apprentice", complete_var=COMPLETE, shell=shell))


@app.command(context_settings={"ignore_unknown_options": True})
def submit(
    arguments: Annotated[list[str], typer.Argument(help="What the job runs, such as: train config.yaml seed=1.")],
    address: Annotated[str | None, typer.Option(help="Of the cluster's dashboard; by default RAY_ADDRESS.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="A variable that the job gets, by its name.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the submission.")] = None,
    go: Annotated[bool, typer.Option("--go", help="Submit it; without, the line is only printed.")] = False,
) -> None:
    """Compose the 'ray job submit' line of a run; --go submits it."""
    import subprocess

    from rl.submission import compose

    job = compose(arguments, address=address, variables=env or [], name=name)
    print(f"# {job.size / 2**20:.1f} MiB of this folder travel", file=sys.stderr)
    print(job.line, flush=True)
    if go:
        raise SystemExit(subprocess.run(job.command, check=False).returncode)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one object for each finding.")] = False) -> None:
    """Say what this machine has and lacks.

    Packages, memory, GPU, sandbox, storage, cluster, data.
    """
    from dataclasses import asdict

    from rl.doctor import examine

    lacking = False
    for finding in examine():
        lacking |= finding.state == "lacking"
        if as_json:
            print(json.dumps(asdict(finding)))
        else:
            print(f"{finding.subject:<10} {finding.state:<8} {finding.detail}")
    if lacking:
        raise SystemExit(1)
