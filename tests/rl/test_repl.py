"""The conversation in the terminal, with a scripted policy."""

import io

import pytest
from rich.console import Console

from rl.serving.repl import converse
from rollouts.formats.inline import InlineFormat
from rollouts.policy import ScriptedPolicy
from rollouts.types import Sampling


def conversation(monkeypatch: pytest.MonkeyPatch, executor, questions: str, *replies: str, max_turns: int = 4) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(questions))
    console = Console(file=io.StringIO(), width=100)
    policy = ScriptedPolicy("p", lambda task: replies)
    converse(policy, InlineFormat(), executor, sampling=Sampling(), max_turns=max_turns, console=console)
    return console.file.getvalue()


def test_question_call_observation_and_answer_are_shown(monkeypatch, executor):
    shown = conversation(monkeypatch, executor, "2 plus [3]?\n\n", "calculator(2+3)->", "Answer: 5 [b]apples[/b]")
    lines = [line.strip() for line in shown.splitlines()[1:]]
    assert lines == [
        "? 2 plus [3]?",
        "calculator(expression='2+3')",
        "-> 5",
        "5 [b]apples[/b]",
        "? ?",
    ]


def test_failed_and_malformed_calls_are_shown_as_such(monkeypatch, executor):
    replies = ("calculator(1/0)->", "calculator(", "calculator(2)->")
    shown = conversation(monkeypatch, executor, "What?\n", *replies, max_turns=3)
    assert "-> tool_error cannot evaluate '1/0': division by zero" in shown
    assert "malformed call calculator(" in shown
    assert "no answer: 3 calls were made" in shown
