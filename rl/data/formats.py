"""How a config names a format."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from executors.errors import ConfigError
from rl.config import FilePath, FolderPath, Strict
from rollouts.formats import Format
from rollouts.formats.inline import AnnotatedFormat, InlineFormat
from rollouts.formats.react import ReactFormat
from rollouts.formats.toolalpaca import ToolAlpacaFormat, Variant


class Inline(Strict):
    """``tool(arguments)->result``, then ``Answer: ...`` (TRICE)."""

    kind: Literal["inline"] = "inline"
    instruction: str = ""
    """Stands before every question."""
    template: str = ""
    """The whole prompt, with ``{question}`` and perhaps ``{instruction}`` in it, as models that were tuned on such a
    template expect it; by default the one above the other."""

    @field_validator("template")
    @classmethod
    def _asks(cls, template: str) -> str:
        if template and "{question}" not in template:
            raise ValueError("it has no {question}; write where the question stands")
        return template

    def build(self) -> Format:
        return InlineFormat(self.instruction, self.template)


class GsmAnnotated(Strict):
    """``<<expression>>`` anywhere in a solution, its result read on the spot (GSM8K)."""

    kind: Literal["annotated"] = "annotated"

    def build(self) -> Format:
        return AnnotatedFormat()


class React(Strict):
    """Thought, Action, Action Input, Observation, Final Answer, in STE's words."""

    kind: Literal["react"] = "react"
    parser: Literal["paper", "fair"] = "fair"
    """``paper`` keeps the published parser's quirks."""
    ground: bool = False
    """Whether a tool name that does not exist is taken for the nearest that does."""
    describe_tools: bool = True
    """Whether the prompt lists the tools; a policy that knows them by heart reads the query alone."""
    tool_markers: bool = False
    """Whether a tokenizer that is built here keeps each tool's ``Action: name`` one token."""

    def build(self) -> Format:
        return ReactFormat(
            parser=self.parser,
            ground=self.ground,
            describe_tools=self.describe_tools,
            tool_markers=self.tool_markers,
        )


class ToolAlpaca(Strict):
    """The same grammar in ToolAlpaca's words."""

    kind: Literal["toolalpaca"] = "toolalpaca"
    variant: Variant = "test_v1"
    """Which of its four prompts; released models were trained on ``test_v1``."""
    parser: Literal["paper", "fair"] = "fair"
    """``paper`` keeps the published parser's quirks, and ends an episode at a reply that it cannot read."""
    instructions: str = ""
    """Stands first, in place of this project's own words."""

    def build(self) -> Format:
        return ToolAlpacaFormat(variant=self.variant, parser=self.parser, instructions=self.instructions)


class Chat(Strict):
    """The model's own chat template, with its tools and its calls."""

    kind: Literal["chat"] = "chat"
    tokenizer: FolderPath = ""
    """Directory of the tokenizer whose template it is; the model's own by default."""
    system: str = ""
    """The system message."""
    template: FilePath = ""
    """File with another template, in Jinja."""
    response_template: FilePath = ""
    """File with another parser of replies, as ``transformers`` describes it, in JSON."""
    options: dict[str, Any] = {}
    """Further variables of the template, such as ``enable_thinking: false``."""
    today: date = date(2026, 1, 1)
    """What a template is told that asks for the date; always the same, so that a prompt can be made again."""

    def build(self) -> Format:
        from rl.models.chat_template import load_chat_format, read_response_template

        if not self.tokenizer:
            raise ConfigError("format.tokenizer is empty; name the model directory whose chat template is meant")
        return load_chat_format(
            Path(self.tokenizer),
            system=self.system,
            chat_template=_text(self.template) if self.template else None,
            response_template=read_response_template(Path(self.response_template)) if self.response_template else None,
            options=self.options,
            today=self.today,
        )


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"format.template: {path} cannot be read: {error}") from error


FormatConfig = Annotated[Inline | GsmAnnotated | React | ToolAlpaca | Chat, Field(discriminator="kind")]
