"""What a user of the package can get wrong."""


class InputError(ValueError):
    """A photo, mask, name, file or checkpoint that cannot be used; the message is one sentence that says what is wrong
    and how to mend it."""
