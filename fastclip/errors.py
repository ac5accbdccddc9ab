"""Errors that a person can mend by changing a flag, a file or a record."""


class UserError(ValueError):
    """Bad input, told in one sentence; commands print it and exit with code 2."""
