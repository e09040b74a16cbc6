"""The exceptions a user is meant to see, and what of the system's errors is one."""

from __future__ import annotations

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """What was given, what is allowed, and the next command; the CLI prints it in one line and exits with 2."""


class Diverged(UserError):
    """Training cannot go on from where it is; every process of the run raises it in the same step."""


def disk_full(error: BaseException) -> bool:
    """Whether no space, or none of a quota, is left. Rust's libraries (safetensors) tell the number in words alone."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(f"os error {number})" in str(error) for number in FULL)
