"""Let policies attempt tasks."""
