"""Built-in tools, one file each, named after the tool."""
