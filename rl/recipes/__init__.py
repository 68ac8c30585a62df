"""Each recipe reads as its paper's method section."""
