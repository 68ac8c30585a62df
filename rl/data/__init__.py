"""From benchmarks to tasks, and from episodes to tensors."""
