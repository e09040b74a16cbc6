"""The one exception a user is meant to see."""


class UserError(Exception):
    """What was given, what is allowed, and the next command; the CLI prints it in one line and exits with 2."""
