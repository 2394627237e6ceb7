"""Messages that fit a screen, whatever a file would have them say."""

_LONGEST = 1500  # With a path and a remedy around it, less than 2,000 characters.


def shortened(text, longest=_LONGEST):
    """The text in one line, with its middle left out where it is longer than `longest`.

    >>> shortened("kernel of a layer: " + 100 * "9", 40)
    'kernel of a layer ... 99999999999999999'
    """
    text = str(text)
    if len(text) > longest:
        half = (longest - 5) // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return " ".join(text.splitlines())
