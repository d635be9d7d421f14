"""What every error promises, whatever it is about."""


def told(error: Exception, *, hides: str = "", most: int = 500) -> None:
    """Check that an error is a sentence of bounded length, without a text that is nobody else's business."""
    text = str(error)
    assert text.strip()
    assert len(text) <= most, len(text)
    assert len(hides) < 12 or hides not in f"{text}{error!r}"
