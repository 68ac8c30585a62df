"""Tools from an OpenAPI document, really requested over HTTP.

Here a simulation answers the document's own requests; put your server's address into LIBRARY_URL instead.

python -m executors.simulation.server examples/openapi/library.yaml --port 5678      # in another terminal
apprentice check examples/openapi/tools.py
apprentice train examples/openapi/tools.py
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SERVER = os.environ.get("LIBRARY_URL", "http://127.0.0.1:5678/library")
READERS = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn")

tools = [
    {
        "openapi": {
            "path": str(Path(__file__).with_name("library.yaml")),
            "server": SERVER,
            "allow_private": [urlsplit(SERVER).netloc],  # an address of this machine is blocked unless it is named
        }
    }
]


def tasks(seed: int) -> Iterator[dict[str, Any]]:
    """Requests with the call that each of them takes; the answers are the server's own affair."""
    draw = random.Random(seed)
    for number in range(300):
        reader, isbn = draw.choice(READERS), draw.randint(1, 999)
        if draw.random() < 0.5:
            prompt, call = f"Look up book {isbn} for reader {number}.", ("get_book", {"isbn": isbn})
        elif draw.random() < 0.5:
            prompt, call = f"Desk {number}: what has {reader} borrowed?", ("list_loans", {"reader": reader})
        else:
            arguments = {"reader": reader, "overdue": True}
            prompt, call = f"Desk {number}: what of {reader}'s is overdue?", ("list_loans", arguments)
        yield {"id": f"desk-{number}", "prompt": prompt, "call": {"tool": call[0], "arguments": call[1]}}


config = {
    "model": {"kind": "tiny", "vocab_size": 400},
    "rewards": {"kind": "call_ladder", "extra_keys": "reject"},  # no call, wrong tool, wrong arguments, right
    "evaluation": {"kind": "calls"},
    "sources": [
        {"name": "gold", "policy": "gold"},
        {"name": "own", "policy": "live", "count": 3, "temperature": 1.0},
    ],
    "rollouts": {"max_turns": 1},
}
