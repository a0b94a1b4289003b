"""Real runs of each kind that the coach judges, recorded once, and what it must say of them."""
