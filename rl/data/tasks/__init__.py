"""Benchmarks as tasks, one file each."""
