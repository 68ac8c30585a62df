"""Tool heads that are learned in several processes."""
