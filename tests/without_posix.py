"""Takes away what Windows lacks, before this library is imported: `import tests.without_posix`, or `pytest -p` with it.

The standard library and the packages that this one stands on are imported first, because they have their own ways
around what is missing, which they choose when they are imported.
"""

import asyncio
import importlib
import os
import shutil
import signal
import sys
import time
from typing import Final

_FIRST: Final = (
    "aiohttp.web",
    "cattrs.preconf.orjson",
    "concurrent.futures.thread",
    "logging.handlers",
    "multiprocessing.util",
    "psycopg",
    "random",
    "redis.asyncio",
    "secrets",
    "sqlite3",
    "subprocess",
    "tempfile",
    "tenacity",
    "uuid",
)
_MODULES: Final = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
_OF_OS: Final = (
    "O_CLOEXEC",
    "O_DIRECTORY",
    "O_NOFOLLOW",
    "O_NONBLOCK",
    "fchmod",
    "fchown",
    "fork",
    "forkpty",
    "geteuid",
    "mkfifo",
    "openpty",
    "pread",
    "pwrite",
    "register_at_fork",
)
_OF_SIGNAL: Final = ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGUSR2")
_OF_TIME: Final = ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "clock_gettime")


def take_away() -> None:
    """Make this interpreter as poor as one on Windows is."""
    assert "respan_async" not in sys.modules, "too late: it has been imported already"
    for name in _FIRST:
        importlib.import_module(name)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # which need what os has no more
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails from here on
    for module, names in ((os, _OF_OS), (signal, _OF_SIGNAL), (time, _OF_TIME)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    loop = asyncio.SelectorEventLoop
    if "add_signal_handler" in vars(loop):
        del loop.add_signal_handler, loop.remove_signal_handler


if sys.platform != "win32":
    take_away()
