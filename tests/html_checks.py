"""Checks of HTML."""

from html.parser import HTMLParser


class WellFormed(HTMLParser):
    """Asserts that every open element is closed, and collects the text."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "input", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_data(self, data):
        self.texts.append(data)
