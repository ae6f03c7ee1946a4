"""Metrics, evaluation on data sets, and plots. Needs the extra `train`."""
