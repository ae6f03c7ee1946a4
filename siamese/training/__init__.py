"""Training. Requires the extra `train`."""
