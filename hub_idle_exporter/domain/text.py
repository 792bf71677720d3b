"""Texts that others chose, shown to people on one line."""


def printable(text: str) -> str:
    """Escape control characters and line breaks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
