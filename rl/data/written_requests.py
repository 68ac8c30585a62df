"""Requests written from the tools' documentation by a rule, for a policy that has to find thousands of tools by few.

ToolGen's authors had a model write tens of requests for every tool. Here each is some of the words of what a tool is
documented to do, behind an opening, some words left out; up to three tools that belong together share a request. What
people really ask for is told by the requests of the data alone.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from executors.foreign import ForeignTool
from rl.data.tasks.tool_requests import Query
from rl.data.toolgen import spoken

_OPENINGS = (
    "I need",
    "Can you give me",
    "Please find",
    "I would like to know",
    "I'm planning something and want",
    "Could you fetch",
    "Help me with",
    "My friends and I are looking for",
    "Provide me with",
    "For my project I want",
)
_FURTHER = (
    "Also, I want",
    "Additionally, give me",
    "Moreover, find",
    "And please fetch",
    "Lastly, provide",
    "Furthermore, I need",
)
_TOGETHER = ((1, 2, 3), (0.3, 0.5, 0.2))
"""Tools of a request, and how often."""
_LEFT_OUT = 0.12
"""Of the words."""


def written_requests(tools: Mapping[str, ForeignTool], count: int, seed: int) -> list[Query]:
    """Requests for every tool.

    Args:
        tools: by name.
        count: requests for each tool; it is among the wanted ones of others besides.
        seed: of the words; the same tools and seed give the same requests.
    """
    generator = random.Random(f"written requests/{seed}")
    siblings: dict[str, list[str]] = defaultdict(list)
    field: dict[str, list[str]] = defaultdict(list)
    for name, tool in tools.items():
        siblings[tool.identity.owner].append(name)
        field[tool.category].append(name)
    found = []
    for name, tool in tools.items():
        for number in range(count):
            wanted = [name]
            for _ in range(generator.choices(*_TOGETHER)[0] - 1):
                near = siblings[tool.identity.owner] if generator.random() < 0.6 else field[tool.category]
                wanted.append(generator.choice(near))
            wanted = list(dict.fromkeys(wanted))
            generator.shuffle(wanted)
            text = _request([tools[each] for each in wanted], generator)
            found.append(
                Query(
                    id=f"written/{name}/{number}",
                    text=text,
                    wanted=tuple(wanted),
                    offered=tuple(wanted),
                    group="written",
                )
            )
    return found


def _request(tools: Sequence[ForeignTool], generator: random.Random) -> str:
    parts = [
        f"{generator.choice(_FURTHER if place else _OPENINGS)} {_phrase(tool, generator)}."
        for place, tool in enumerate(tools)
    ]
    return " ".join(parts)


def _phrase(tool: ForeignTool, generator: random.Random) -> str:
    """Some of the words that a tool is documented by."""
    about, name = spoken(tool.spec.description).split(), spoken(tool.identity.raw).split()
    words = name
    if about and generator.random() < 0.7:
        size = generator.randint(4, 14)
        start = 0 if generator.random() < 0.6 else generator.randrange(max(1, len(about) - size + 1))
        words = about[start : start + size]
        if generator.random() < 0.3:
            words = name + words
    owner = spoken(tool.identity.owner).split()
    if owner and generator.random() < 0.5:
        words = [*words, generator.choice(("from", "of")), *owner]
    parameters = list(tool.spec.parameters.get("properties", {}))
    if parameters and generator.random() < 0.3:
        words = [*words, "for", "the", *spoken(generator.choice(parameters)).split()]
    kept = [word for word in words if generator.random() >= _LEFT_OUT] or words
    said = " ".join(kept).strip(".")
    return said.lower() if generator.random() < 0.6 else said
