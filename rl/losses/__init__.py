"""Objectives: tensors in, scalar out."""
