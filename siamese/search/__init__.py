"""Search in many photos."""
