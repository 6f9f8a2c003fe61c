"""What a process asks of the kernel about itself: prctl(2), for which Python has no module."""

import ctypes
import resource
from typing import Final

_SET_DUMPABLE: Final = 4
_SET_CHILD_SUBREAPER: Final = 36


def keep_to_itself() -> None:
    """Leave no core, and keep other processes of the same user from reading memory and environment.

    The commands that Claude runs are such processes. It ends with an exec: what is started from here, and may
    be debugged, is not kept from it. Cores of those are off as well, until they ask for them.
    """
    _prctl(_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def adopt_orphans() -> None:
    """Become the parent of descendants that lose theirs: so nothing leaves the tree of this process."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}) failed")
