"""The tools of an MCP server, which each process of the run starts for itself and speaks to over its stdin.

pip install 'apprentice[mcp]'
apprentice check examples/mcp/tools.py
apprentice train examples/mcp/tools.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.mcp.server import place

SERVERS = {"parcels": {"command": sys.executable, "args": [str(Path(__file__).with_name("server.py"))]}}

tools = [{"mcp": {"mcpServers": SERVERS}}]  # or "mcp:servers.json"


def tasks() -> Iterator[dict[str, Any]]:
    """Questions about parcels; a tool is named after its server."""
    for parcel in range(1, 301):
        call = {"tool": "parcels__where", "arguments": {"parcel": parcel}}
        yield {"id": f"parcel-{parcel}", "prompt": f"Where is parcel {parcel}?", "answer": place(parcel), "call": call}


config = {"model": {"kind": "tiny", "vocab_size": 300}, "rewards": {"kind": "weighted", "match": "exact"}}
