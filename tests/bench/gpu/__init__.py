"""Benchmarks and calibrations that need an NVIDIA GPU."""
