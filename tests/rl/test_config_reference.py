"""docs/config.md is what the models say."""

import re
from pathlib import Path

from rl.config import parts, read_yaml, validate
from rl.planning.reference import reference
from rl.recipes.registry import any_config_class

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/config.md"


def test_the_config_reference_is_up_to_date():
    assert PAGE.read_text() == reference(), "run: python -m rl.planning.reference docs/config.md"


def test_every_link_of_it_leads_to_a_part():
    page = PAGE.read_text()
    anchors = {
        "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_").replace(" ", "-")
        for title in re.findall(r"^##+ (.*)$", page, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= anchors


def test_every_part_of_the_shipped_configs_is_in_it():
    page = PAGE.read_text()
    for path in sorted(ROOT.glob("configs/*/*.yaml")):
        content = read_yaml(path)
        if "recipe" not in content:
            continue
        config = validate(content, any_config_class(content["recipe"], str(path)), str(path))
        for _, part in parts(config):
            kind = type(part)
            assert f"(`{kind.__module__}.{kind.__name__}`)" in page
