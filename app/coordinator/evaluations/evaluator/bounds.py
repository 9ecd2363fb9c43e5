"""How much is read and said at once."""

#: Bytes of a record, and of what a model says at once.
MAX_RECORD = 64 * 1024 * 1024
#: Characters of an error message.
MAX_ERROR = 1000


def in_words(text: object) -> str:
    """What others say, as it can be told: printable, and not too long."""
    shown = "".join(
        each if each.isprintable() else repr(each)[1:-1] for each in str(text)[:MAX_ERROR]
    )
    return shown if len(shown) <= MAX_ERROR else f"{shown[:MAX_ERROR]}..."
