"""The same rollouts on held-out tasks, metrics with intervals, and the report."""
