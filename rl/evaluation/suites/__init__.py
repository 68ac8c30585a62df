"""Published evaluations, rebuilt: they read the files that their authors' code writes, and count as it counts."""
