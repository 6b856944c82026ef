"""What a user of the package can get wrong."""

LONGEST = 300
"""Characters of a message at most."""


class InputError(ValueError):
    """A photo, mask, name, file or checkpoint that cannot be used; the message is one sentence that says what is wrong
    and how to mend it.

    Args:
        message: put on one printable line of at most `LONGEST` characters, whatever names and paths it quotes. Of a
            worker process's, which PyTorch gives its traceback, the last line is taken.
    """

    def __init__(self, message: str) -> None:
        if "Traceback (most recent call last)" in message:
            message = message.strip().splitlines()[-1].partition(": ")[2]
        super().__init__(one_line(message))


class WriteError(InputError):
    """A file that could not be written, and is as it was before."""


class DiskFullError(WriteError):
    """There is no room for a file; others will not fit either."""


class BaseNotAvailableError(OSError):
    """A frozen base could be had from nowhere, or is damaged; the message names it and the ways to get it.

    Args:
        message: as of `InputError`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text on one printable line. One that is too long loses its middle: its end says what to do."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(text) <= longest:
        return text
    head = longest // 2
    return f"{text[:head]}…{text[head + 1 - longest :]}"
