"""A model that is asked, and what that takes: so that whoever explores can keep to a budget."""

from collections.abc import Sequence
from typing import Any

from executors.endpoint import EndpointClient, Message, Model

_CHARACTERS = 4
"""Of a token, where nobody counts them."""


class Metered:
    """A model for one purpose; itself a ``Model``."""

    def __init__(self, model: Model) -> None:
        """
        Args:
            model: an ``EndpointClient`` says what it took; of another, the tokens are told from the length of the text.
        """
        self.model = model
        self.tokens = 0
        """Read and written so far."""
        self.cost = 0.0
        """In US dollars, so far."""

    async def __call__(self, messages: Sequence[Message], **options: Any) -> str:
        """The text that the model answers."""
        if isinstance(self.model, EndpointClient):
            reply = await self.model.chat(messages, **options)
            self.tokens += reply.usage.prompt + reply.usage.completion
            self.cost += reply.cost
            return reply.text
        said = await self.model(messages, **options)
        read = sum(len(str(message["content"])) for message in messages)
        self.tokens += read // _CHARACTERS + len(said) // _CHARACTERS
        return said
