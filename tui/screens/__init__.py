"""One screen for each step, and those around them."""
