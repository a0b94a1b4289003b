"""Benchmarks that anyone can rerun: `make bench`, or `python -m tests.bench startup`. Ratios within one run, no verdicts in
the test suite."""
