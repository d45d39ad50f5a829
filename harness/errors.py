"""What a user can get wrong: every error is one readable line naming the thing, the value, the rule and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class HarnessError(Exception):
    """Something the user can mend; commands print it as one line and exit with code 2."""


class ConfigError(HarnessError):
    """A config holds a value that is not allowed."""


class SpaceError(HarnessError):
    """A space is not one: empty, overlapping or without effect."""


class StudyError(HarnessError):
    """A study cannot be read, or does not fit what its database holds."""


class DataError(HarnessError):
    """A data set is missing, broken or unknown."""


class StorageError(HarnessError):
    """A database cannot be opened, read or written."""


class CodeError(HarnessError):
    """A user's own module is missing, broken or changed."""


class DiskError(HarnessError):
    """What a trial leaves cannot be written, or not be read."""


class StoreClosed(DiskError):
    """This machine has no way into a store: a package, keys or a permission is lacking."""


class Diverged(HarnessError):
    """The loss of a training, or another metric, is no longer a number."""


class Interrupted(Exception):
    """The run ends while an epoch is under way: no error, and nobody's fault."""


class RankLost(Exception):
    """A process of the trial has died: nobody's fault, it goes on elsewhere from its checkpoint."""


class RankFailed(Exception):
    """A process of the trial met an error, which it told; `cause` is what a trial's outcome says of it."""

    def __init__(self, reason: str, cause: str, traceback: str) -> None:
        super().__init__(reason)
        self.cause = cause
        self.add_note(traceback)


def hint(value: object, allowed: Iterable[str]) -> str:
    """'; did you mean 'gaussian'?' when one of the allowed names is close to the value, else nothing."""
    close = get_close_matches(str(value), list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_line(error: BaseException, limit: int = 400) -> str:
    """The error's own words, on one line, with its type where it is not ours."""
    words = " ".join(str(error).split())
    if not isinstance(error, HarnessError):
        words = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return words if len(words) <= limit else words[: limit - 3] + "..."
