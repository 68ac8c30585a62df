"""A conversation in the terminal: each question is one episode, its calls really executed."""

import asyncio
import sys

from rich.console import Console
from rich.markup import escape

from executors.executor import Executor
from executors.types import MalformedCall, Observation, ToolCall
from rl.serving.offering import Offering
from rollouts.episode import play
from rollouts.formats import Format
from rollouts.policy import Policy, Source
from rollouts.types import Episode, Sampling, Task

_TOLD = 24
"""Tools that are named at the beginning."""


def converse(
    policy: Policy,
    format: Format,
    executor: Executor,
    *,
    sampling: Sampling,
    max_turns: int,
    console: Console,
    offering: Offering = Offering(),
) -> None:
    """Answer questions from standard input until it ends, or until Ctrl-C.

    Args:
        policy: who answers.
        format: that it was trained to read and write.
        executor: runs its tools here.
        sampling: of replies.
        max_turns: calls after which a question is given up.
        console: where to write.
        offering: which of the tools a question is offered.
    """
    names = executor.catalog.names
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    console.print(f"Tools: {', '.join(names[:_TOLD])}{more}. Each question stands alone; Ctrl-D ends.")
    source = Source(name="chat", policy=policy.name, sampling=sampling)
    with asyncio.Runner() as runner:
        asked = 0
        while True:
            try:
                question = console.input("[bold]? [/]").strip()
                if not question:
                    continue
                if not sys.stdin.isatty():
                    console.print(escape(question))
                tools = offering.names(question, executor.catalog.specs())
                task = Task(id=f"chat-{asked}", prompt=question, tools=tools)
                attempt = play(task, policy, executor, format, source=source, seed=asked, max_turns=max_turns)
                _show(runner.run(attempt), console)
                asked += 1
            except (EOFError, KeyboardInterrupt):
                console.print()
                return


def _show(episode: Episode, console: Console) -> None:
    for turn in episode.turns:
        for call, observation in zip(turn.calls, turn.observations, strict=True):
            _show_call(call, observation, console)
    if episode.answer is not None:
        cut = " [yellow](cut at the length limit)[/]" if episode.stop == "token_limit" else ""
        console.print(f"  [green]{escape(episode.answer)}[/]{cut}")
    elif episode.stop == "failed":
        console.print(f"  [red]failed: {escape(episode.error)}[/]")
    elif episode.stop == "prompt_limit":
        console.print(f"  [yellow]no answer: {escape(episode.error)}[/]")
    else:
        limit = "a reply was cut" if episode.stop == "token_limit" else f"{len(episode.calls)} calls were made"
        console.print(f"  [yellow]no answer: {limit}[/]")


def _show_call(call: ToolCall | MalformedCall, observation: Observation, console: Console) -> None:
    if isinstance(call, MalformedCall):
        console.print(f"  [red]malformed call[/] {escape(call.text)}")
    else:
        arguments = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
        console.print(f"  [cyan]{escape(call.tool)}[/]({escape(arguments)})")
    status = "" if observation.ok else f"[red]{observation.status}[/] "
    console.print(f"  -> {status}{escape(observation.content)}")
