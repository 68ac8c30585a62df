"""What a ToolkenGPT run's policy reads before a question: in reasoning mode, in tool mode, and with calls as text."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rl.data.prompting import Prompting
from rl.data.spans import MarkedData
from rl.recipes.toolkengpt_config import ToolkenGptConfig
from rollouts.formats.toolken import ToolkenFormat


@dataclass(frozen=True, slots=True)
class Prompts:
    """Formats and templates, each with ``[QUESTION]`` in it."""

    format: ToolkenFormat
    """Of reasoning mode."""
    inline: ToolkenFormat | None
    """Of a policy that writes its calls as text; None where it was shown none."""
    demonstrations: Mapping[str, str] | None
    """Of tool mode, by tool; None where there is nothing to show."""


def prompts(config: ToolkenGptConfig, data: MarkedData, begin: str) -> Prompts:
    """The prompts of a run.

    Args:
        config: of the run.
        data: that it has loaded.
        begin: the token that the model's texts begin with.
    """
    asked = replace(data, template=config.template or data.template)
    if not config.shots:
        calls = begin + calls_template(config, data)
        shown = dict.fromkeys(data.tools, calls) if data.demonstrations else None
        inline = ToolkenFormat(calls, inline=True) if data.demonstrations else None
        return Prompts(ToolkenFormat(begin + asked.template), inline, shown)
    words, calls = (Prompting(method=method, shots=config.shots, seed=config.seed) for method in ("cot", "react"))
    return Prompts(
        ToolkenFormat(begin + words.template(asked)),
        ToolkenFormat(begin + calls.template(asked), inline=True),
        {name: begin + calls.template_of(name, asked, config.shots) for name in data.tools},
    )


def calls_template(config: ToolkenGptConfig, data: MarkedData) -> str:
    """What stands before texts in which calls are written."""
    return config.calls_template or f"With calls.\n{config.template or data.template}"
