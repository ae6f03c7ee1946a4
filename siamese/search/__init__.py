"""Search and group the faces of many photos."""
