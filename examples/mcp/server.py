"""A small MCP server, over stdin and stdout: where parcels are."""

PLACES = ("the depot", "the van", "the post office", "your door")


def place(parcel: int) -> str:
    """Where a parcel is."""
    return PLACES[parcel * 7 % 4]


def main() -> None:
    """Serve until the client hangs up."""
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("parcels")

    @server.tool()
    def where(parcel: int) -> str:
        """Say where a parcel is."""
        if parcel < 1:
            raise ValueError("parcels are numbered from 1")
        return place(parcel)

    server.run()


if __name__ == "__main__":
    main()
