"""Run tool calls. Knows no model and no reward."""
