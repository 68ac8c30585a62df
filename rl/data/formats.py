"""How a config names a format."""

from typing import Annotated, Literal

from pydantic import Field

from rl.config import Strict
from rollouts.formats import Format
from rollouts.formats.inline import AnnotatedFormat, InlineFormat
from rollouts.formats.react import ReactFormat


class Inline(Strict):
    """``tool(arguments)->result``, then ``Answer: ...`` (TRICE)."""

    kind: Literal["inline"] = "inline"
    instruction: str = ""
    """Stands before every question."""

    def build(self) -> Format:
        return InlineFormat(self.instruction)


class GsmAnnotated(Strict):
    """``<<expression>>`` anywhere in a solution, its result read on the spot (GSM8K)."""

    kind: Literal["annotated"] = "annotated"

    def build(self) -> Format:
        return AnnotatedFormat()


class React(Strict):
    """Thought, Action, Action Input, Observation, Final Answer (STE, ToolAlpaca)."""

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


FormatConfig = Annotated[Inline | GsmAnnotated | React, Field(discriminator="kind")]
