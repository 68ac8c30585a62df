"""The documentation: its links lead somewhere, its commands and names are there, its messages are those of the code."""

import importlib
import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [link.partition("#")[0] for link in found if "://" not in link and not link.startswith("#")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page):
    assert not [link for link in links(page.read_text()) if not (page.parent / link).exists()]


def test_the_index_has_every_page():
    index = {(ROOT / "docs" / link).resolve() for link in links((ROOT / "docs" / "README.md").read_text())}
    assert not [name(page) for page in ROOT.glob("docs/*.md") if page.name != "README.md" and page not in index]


@cache
def commands() -> dict[str, Any]:
    from rl.cli import app

    command: Any = typer.main.get_command(app)
    return dict(command.commands)


def written(text: str) -> list[list[str]]:
    """The commands of a page, word by word: in blocks of code and between backticks."""
    code = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line.strip() for block in code for line in block.splitlines()]
    found = []
    for line in [*lines, *(" ".join(part.split()) for part in inline)]:
        if match := re.match(r"(?:apprentice|python -m rl) (.*)", line):
            found.append(re.sub(r"[\[\]]", " ", match[1].partition(" #")[0]).split())
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_and_option_is_there(page):
    for words in written(page.read_text()):
        while words and words[0].startswith("--"):
            assert words[0] in ("--help", "--unsafe-local-exec"), words
            words = words[1:]
        if not words or words[0] in ("...", "VERB"):
            continue
        assert words[0] in commands(), f"apprentice {shlex.join(words)}"
        known = {
            option for parameter in commands()[words[0]].params for option in parameter.opts + parameter.secondary_opts
        }
        used = {word.partition("=")[0].rstrip(".,;:") for word in words[1:] if word.startswith("--")}
        assert used <= known | {"--help"}, f"apprentice {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_and_modules_that_are_named_are_there(page):
    text = page.read_text()
    named = re.findall(
        r"(?<![\w/.])((?:configs|examples|deploy|tests|benchmarks)/[\w/.-]+\.(?:py|yaml|md|jsonl|json))", text
    )
    assert not [path for path in named if not (ROOT / path).exists()]
    modules = re.findall(r"python -m ((?:executors|rollouts|rl|benchmarks)[\w.]*)", text)
    assert not [module for module in modules if importlib.util.find_spec(module) is None]


def test_every_name_of_the_api_page_can_be_imported():
    names = re.findall(r"`((?:executors|rollouts|rewards|rl)\.[\w.]+)`", (ROOT / "docs" / "api.md").read_text())
    assert len(names) > 60
    for dotted in names:
        module, _, attribute = dotted.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), dotted


def test_the_messages_of_the_operations_page_are_those_of_the_code():
    sources = "\n".join(
        path.read_text()
        for package in ("executors", "rollouts", "rewards", "rl")
        for path in (ROOT / package).rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    table = (ROOT / "docs" / "operations.md").read_text().partition("## What to do when")[2]
    rows = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(rows) >= 12
    for message in rows:
        for part in re.split(r"\.\.\.|'[a-z]'|\b[NM]\b|[();?]", message):
            assert part.strip() in joined, (message, part)
