"""Metrics, benchmarks and plots. Needs the extra `train`."""
