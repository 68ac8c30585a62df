"""Grids of runs: several arms and seeds of one config, compared in one table."""
