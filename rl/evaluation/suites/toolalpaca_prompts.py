"""ToolAlpaca's judge prompts, read back: the documentation, the instruction, the expected calls, and the solution."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rewards.process import Step, read_gold, read_step

_DOCUMENTATION = "\n## Documentation\n"
_INSTRUCTION = "\n## Task Instruction\n"
_GOLD = "\n## Standard Answer\n"
_SOLUTION = "\n## AI Assistant's Solution\n"
_END = "\n## Analysis"
_STEP = re.compile(r"(?:^|\n)(\d+)\. (Function|Final Response):")
_DESCRIBED = re.compile(r"^([\w.-]+): .*\nParameters: (\{.*\})[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePrompt:
    """What a judge was shown of one attempt."""

    documentation: str
    instruction: str
    gold: tuple[Step, ...]
    solution: tuple[Step, ...]
    returned: tuple[str, ...]
    """What each call of the solution gave."""
    response: str | None
    """The final response; None where the attempt came to none."""

    @property
    def functions(self) -> Mapping[str, Mapping[str, str]]:
        """By documented function, what is said of each of its parameters."""
        return {name: dict(described) for name, described in _described(self.documentation)}

    @property
    def required(self) -> dict[str, tuple[str, ...]]:
        """By documented function, the parameters that it requires."""
        return {
            name: tuple(parameter for parameter, text in described.items() if text.startswith("Required"))
            for name, described in self.functions.items()
        }


def read_prompt(text: str) -> JudgePrompt:
    """A judge prompt in its parts.

    Raises:
        ValueError: a part is missing.
    """
    parts = []
    rest = text
    for heading in (_DOCUMENTATION, _INSTRUCTION, _GOLD, _SOLUTION):
        part, found, rest = rest.partition(heading)
        if not found:
            raise ValueError(f"the prompt has no {heading.strip()!r}")
        parts.append(part)
    solution, found, _ = rest.rpartition(_END)
    steps = list(_steps(solution if found else rest))
    final = [body.strip() for kind, body in steps if kind == "Final Response"]
    made = [_call(body) for kind, body in steps if kind == "Function"]
    return JudgePrompt(
        documentation=parts[1].strip(),
        instruction=parts[2].strip(),
        gold=tuple(read_gold(name, arguments) for name, arguments, _ in (_call(body) for _, body in _steps(parts[3]))),
        solution=tuple(read_step(name, arguments) for name, arguments, _ in made),
        returned=tuple(returned for _, _, returned in made),
        response=final[-1] if final else None,
    )


def _steps(text: str) -> Iterator[tuple[str, str]]:
    """The numbered steps of a text and their kinds; a number out of turn belongs to what stands around it."""
    marks = []
    for match in _STEP.finditer(text):
        if int(match[1]) == len(marks) + 1:
            marks.append(match)
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        yield mark[2], text[mark.end() : end]


def _call(body: str) -> tuple[str, str, str]:
    """Name, arguments and return of a step. The word before the return is misspelt in the published prompts."""
    name, _, rest = body.partition("\nParameters:")
    arguments, _, returned = re.sub(r"\nReturns:", "\nRetruns:", rest, count=1).partition("\nRetruns:")
    return name.strip(), arguments.strip(), returned.strip()


def _described(documentation: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    for match in _DESCRIBED.finditer(documentation):
        try:
            described = json.loads(match[2])
        except ValueError:
            continue
        yield match[1], {name: str(text) for name, text in described.items()}
