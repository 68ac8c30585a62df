"""``python -m rl`` is ``apprentice``."""

from rl.cli import main

main()
