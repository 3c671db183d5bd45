"""The two ways in which the bed can fail."""


class BedError(Exception):
    """Something that should have worked did not; the text ends with the log that says why."""


class MissingError(BedError):
    """This machine lacks a part that the bed needs; the text says which part and how to get it."""
