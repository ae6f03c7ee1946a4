"""HTML, charts and text of the demo page."""
