"""Trials: one imagined query each, attempted and judged; made in the process that explores, or by workers on Ray."""
