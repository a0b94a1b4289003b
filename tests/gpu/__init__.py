"""What only a GPU can show. Collected only where an NVIDIA GPU is; `pytest tests/gpu` runs it alone (about a quarter of an hour)."""
