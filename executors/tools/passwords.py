"""Passwords and tokens, drawn from the episode's own randomness: an episode that is played again draws the same."""

import random
import string
from dataclasses import dataclass

from executors.errors import ToolError
from executors.tools.ste import ste_api
from executors.types import Scene

MAX_LENGTH = 256

_SIGNS = "!#$%&*+-=?@_"
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, _SIGNS)


@dataclass(frozen=True, slots=True)
class Draws:
    """Makes an episode's randomness."""

    def open(self, scene: Scene) -> random.Random:
        """Random numbers that follow from the episode's seed."""
        return random.Random(f"passwords/{scene.seed}/{scene.episode}")


DRAWS = Draws()


@ste_api("Password Generator API%%Base", state=DRAWS)
def password(draw: random.Random) -> str:
    """A random password of 16 characters."""
    return password_of(draw, 16)


@ste_api("Password Generator API%%Password of length 50", state=DRAWS)
def password_of_length(draw: random.Random, length: str = "50") -> str:
    """A random password.

    Args:
        draw: the episode's randomness.
        length: how many characters, from 4 on.
    """
    try:
        wanted = int(str(length))
    except ValueError as error:
        raise ToolError(f"length {str(length)[:40]!r} is no whole number") from error
    if not 4 <= wanted <= MAX_LENGTH:
        raise ToolError(f"length is from 4 to {MAX_LENGTH}, not {wanted}")
    return password_of(draw, wanted)


def password_of(draw: random.Random, length: int) -> str:
    """A password with letters of both cases, digits and signs."""
    letters = [draw.choice(kind) for kind in _KINDS]
    letters += [draw.choice("".join(_KINDS)) for _ in range(length - len(letters))]
    draw.shuffle(letters)
    return "".join(letters)


@ste_api("Token API%%generate", state=DRAWS)
def token(draw: random.Random) -> dict[str, object]:
    """A token that is valid for five minutes."""
    return {"token": "".join(draw.choice("0123456789abcdef") for _ in range(32)), "expires_in": 300}
