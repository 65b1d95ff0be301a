"""What people see while a command works: the only module that prints.

News (``say``, ``note``, ``warn``) may get lost: a closed pipe, a full disk or a
terminal that has gone ends no training.  Results (``show``) may not.  Everything that
is printed is made harmless first, see ``escape``.
"""

import contextlib
import errno
import os
import re
import sys
from typing import Any, ContextManager, Iterator, Optional, Sequence, TextIO

STDOUT = "-"  # The value of --output that stands for standard output.
STDOUT_NAME = "standard output"
# Control characters other than line feed and tab, halves of characters (bytes of a
# name that are not UTF-8), and marks that reverse the direction of the text.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_is_quiet = False
_is_log = False


def prepare(is_log: bool = False) -> None:
    """Make the standard streams fit for any text; call it once, at the door.

    Args:
        is_log: Whether the output goes into a log file, which gets no colours.
    """
    global _is_log
    _is_log = is_log
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # Closed: else the next file that is opened would take it.
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # With LANG=C a name that is not ASCII would be an error.
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Drop what cannot be written, else Python complains about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def be_quiet(is_quiet: bool) -> None:
    """Show results, warnings and errors only, or everything again."""
    global _is_quiet
    _is_quiet = is_quiet


def escape(text: str) -> str:
    r"""Return a text in which names can neither move the cursor nor change colours.

    Control characters become ``\u001b`` and the like, which JSON understands as well.
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def count(number: int, thing: str) -> str:
    """Return a number with its noun, e.g. ``1 picture`` or ``2 pictures``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def list_some(names: Sequence[str], most: int = 6, is_counted: bool = True) -> str:
    """Return the first names of a list that may be long, separated by commas.

    Args:
        names: All names.
        most: Number of names that are shown.
        is_counted: Whether the number of all names follows where some are not shown.
    """
    text = ", ".join(names[:most])
    if len(names) > most:
        text += f", ... ({len(names)})" if is_counted else ", ..."
    return text


def say(text: str, is_result: bool = False) -> None:
    """Print to standard output; the text may get lost.

    Args:
        text: One line or more.
        is_result: Whether the command was given for it, so that --quiet shows it too.
    """
    if is_result or not _is_quiet:
        _print_if_possible(text, sys.stdout)


def show(text: str) -> None:
    """Print what a command was given for, which must not get lost.

    Raises:
        OSError: Standard output takes no more; ``filename`` is ``STDOUT_NAME``.
    """
    with writing_results():
        print(escape(text), file=require_stdout(), flush=True)


@contextlib.contextmanager
def writing_results() -> Iterator[None]:
    """Give errors of standard output, which have no name of a file, its name.

    Raises:
        OSError: An error with a name.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or STDOUT_NAME
        raise


def note(text: str) -> None:
    """Print news to stderr, where they do not mix with data on standard output."""
    if not _is_quiet:
        _print_if_possible(text, sys.stderr)


def tell(text: str) -> None:
    """Print to stderr what is shown in any case, with --quiet too."""
    _print_if_possible(text, sys.stderr)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    _print_if_possible(f"warning: {text}", sys.stderr)


def complain(text: str) -> None:
    """Print the error that ends a command to stderr."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    is_coloured = not (is_plain or _is_log) and _is_terminal(sys.stderr)
    heading = "\033[31merror:\033[0m" if is_coloured else "error:"
    _print_if_possible(text, sys.stderr, heading + " ")


def has_bars() -> bool:
    """Return whether progress bars are shown: not in pipes and log files."""
    return not _is_quiet and _is_terminal(sys.stderr)


def open_bar(
    what: str, total: int, unit: str, start: int = 0, is_wanted: bool = True
) -> Any:
    """Return a progress bar (of tqdm); it is shown where there is a terminal.

    Args:
        what: Activity, e.g. ``converting``; empty: none is named.
        total: Number of units.
        unit: Thing that is counted, e.g. ``images``.
        start: Number of units that were done before.
        is_wanted: Whether the bar is shown where there is a terminal.
    """
    from tqdm import tqdm

    return tqdm(
        desc=what or None,
        total=total,
        unit=f" {unit}",
        initial=start,
        disable=not (is_wanted and has_bars()),
        file=_LossyStream(sys.stderr),
        leave=bool(what),
    )


class _LossyStream:
    """A stream for news: a terminal that has gone does not matter."""

    def __init__(self, stream: Optional[TextIO]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:  # So tqdm knows whose text to clear.
        return other is self or other is self._stream

    def write(self, text: str) -> None:
        """Write text, or lose it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)  # type: ignore[union-attr]

    def flush(self) -> None:
        """Flush what was written, or lose it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()  # type: ignore[union-attr]


def _is_terminal(stream: Optional[TextIO]) -> bool:
    return stream is not None and stream.isatty()


def require_stdout() -> TextIO:
    """Return standard output.

    Raises:
        OSError: It was closed before this program began.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdout


def _print_if_possible(text: str, stream: Optional[TextIO], heading: str = "") -> None:
    if stream is None:  # It was closed before Python began.
        return
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed since then.
        with _clearing_bars(stream):
            print(heading + escape(text), file=stream, flush=True)


def _clearing_bars(stream: TextIO) -> ContextManager[None]:
    """Let text appear above a progress bar, not within it."""
    if "tqdm" not in sys.modules:  # It takes long to import, and there is no bar.
        return contextlib.nullcontext()
    from tqdm import tqdm

    return tqdm.external_write_mode(file=stream)
