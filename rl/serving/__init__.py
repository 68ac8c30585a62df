"""Policies that reply: the transformers engine, scripted ones, and the Ray Serve app."""
