"""Other Unix users, as whom root's tests may do something; anybody else's tests do it as who they are."""

import contextlib
import os
from collections.abc import Iterator

ANNA, BEN = 65534, 12345


@contextlib.contextmanager
def user(number: int) -> Iterator[None]:
    """This process as another user of a group of their own; paths have to lead through folders that both may enter, which
    pytest's are not: relative ones do."""
    root = os.geteuid() == 0
    if root:
        os.setresgid(number, number, 0)
        os.setresuid(number, number, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
