"""Pages about runs: what was attempted, how it was ranked, how it is going; ``apprentice ui``."""
