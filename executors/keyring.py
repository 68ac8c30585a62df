"""The keys of an endpoint: one variable of the environment holds one, or several with commas between them.

Of several, one is used until it is over its rate or refused; then the next one is, as long as there is one.
"""

import os
import threading
import time

from executors.errors import ConfigError

_REST = 20.0
"""Seconds that a key which is over its rate is left alone, where the server does not say how long."""


class Keyring:
    """The keys that a variable holds. It may be used from several threads."""

    def __init__(self, name: str | None, url: str) -> None:
        """
        Args:
            name: of the variable; None where no key is sent.
            url: of the endpoint, for messages.

        Raises:
            ConfigError: the variable is not set.
        """
        self._name = name
        self._url = url
        self._resting: dict[str, float] = {}
        """By key, until when."""
        self._lock = threading.Lock()
        self.keys()

    def keys(self) -> tuple[str, ...]:
        """All of them; one empty one where none is sent.

        Raises:
            ConfigError: the variable is not set.
        """
        if self._name is None:
            return ("",)
        found = tuple(key for part in os.environ.get(self._name, "").split(",") if (key := part.strip()))
        if not found:
            raise ConfigError(f"the key for {self._url} is not set: export {self._name}=... and start again")
        return found

    def current(self) -> str:
        """The one to use: the first that is not left alone, else the one that is so for the shortest time."""
        now = time.monotonic()
        with self._lock:
            return min(self.keys(), key=lambda key: max(self._resting.get(key, 0.0), now))

    def give_up(self, key: str, seconds: float | None = None) -> bool:
        """Leave a key alone for a while; returns whether another one can be used at once.

        Args:
            key: that was refused, or is over its rate.
            seconds: how long; 0 where nobody says, None for good.
        """
        now = time.monotonic()
        with self._lock:
            self._resting[key] = float("inf") if seconds is None else now + (seconds or _REST)
            return any(self._resting.get(other, 0.0) <= now for other in self.keys())

    def hidden(self, text: str) -> str:
        """A text without the keys."""
        for key in self.keys():
            text = text.replace(key, "[key]") if key else text
        return text
