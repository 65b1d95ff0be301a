"""What people see while a command works; all of it can be turned off."""

import contextlib
import os
import sys
from typing import Iterator

STDOUT = "-"  # As an --output.
STDOUT_NAME = "standard output"
_is_quiet = False


def be_quiet(is_quiet: bool) -> None:
    """Show results, warnings and errors only, or everything again."""
    global _is_quiet
    _is_quiet = is_quiet


def has_bars() -> bool:
    """Return whether progress bars are shown: not in pipes and log files."""
    return not _is_quiet and sys.stderr.isatty()


def say(text: str, is_result: bool = False) -> None:
    """Print to stdout; that a disk or a pipe takes no more ends no training.

    Args:
        text: one line or more.
        is_result: what the command was given for: shown in any case.
    """
    if is_result or not _is_quiet:
        with contextlib.suppress(OSError):
            print(text, flush=True)


def show(text: str) -> None:
    """Print what a command was given for: unlike news, it must not get lost.

    Raises:
        OSError: with the name ``STDOUT_NAME``: that takes no more.
    """
    with writing_results():
        print(text, flush=True)


@contextlib.contextmanager
def writing_results() -> Iterator[None]:
    """Give errors without the name of a file that of stdout, which is written to.

    Raises:
        OSError: with a name.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or STDOUT_NAME
        raise


def drop_output() -> None:
    """Let what is left for stdout go nowhere, else Python tries again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(text: str) -> None:
    """Print a warning to stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print news to stderr, apart from what may be data on stdout."""
    if not _is_quiet:
        print(text, file=sys.stderr, flush=True)
