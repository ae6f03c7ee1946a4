"""Training. Needs the extra `train`."""
