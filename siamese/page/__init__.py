"""HTML, charts and text of the page."""
