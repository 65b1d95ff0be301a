"""The only module that prints to the terminal.

Messages (``say``, ``note``, ``warn``) may get lost, so that a closed pipe, a full disk
or a lost terminal does not end a training.  Results (``show``) must not get lost.
Control characters are escaped in everything that is printed, see ``escape``.
"""

import contextlib
import errno
import io
import os
import re
import select
import sys
from typing import Any, ContextManager, Iterator, Optional, Sequence, TextIO

STDOUT = "-"  # The value of --output that stands for standard output.
STDOUT_NAME = "standard output"
# Control characters other than line feed and tab, surrogates (bytes of a name that are
# not UTF-8), and marks that reverse the direction of the text.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_is_quiet = False
_is_log = False


def prepare(is_log: bool = False) -> None:
    """Prepare the standard streams for any text; the program calls this once.

    Args:
        is_log: Whether the output goes to a log file, which gets no colours.
    """
    global _is_log
    _is_log = is_log
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened would get this descriptor, and
            # messages would be written into that file.
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # With LANG=C, printing a name that is not ASCII would raise an error.
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Discard output that cannot be written.

    Otherwise Python would print an additional error when it exits.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def be_quiet(is_quiet: bool) -> None:
    """Choose which messages are printed.

    Args:
        is_quiet: True to print only results, warnings and errors; False to print all
            messages.
    """
    global _is_quiet
    _is_quiet = is_quiet


def escape(text: str) -> str:
    r"""Return the text with its control characters escaped.

    Names of files can then neither move the cursor nor change colours.  The escapes,
    such as ``\u001b``, are valid in JSON.
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def count(number: int, thing: str) -> str:
    """Return a number with its noun, e.g. ``1 picture`` or ``2 pictures``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def list_some(names: Sequence[str], most: int = 6, is_counted: bool = True) -> str:
    """Return the first names of a list, separated by commas.

    Args:
        names: All names.
        most: Largest number of names that are shown.
        is_counted: Whether a shortened list ends with the number of all names.
    """
    text = ", ".join(names[:most])
    if len(names) > most:
        text += f", ... ({len(names)})" if is_counted else ", ..."
    return text


def say(text: str, is_result: bool = False) -> None:
    """Print to standard output; the text may get lost.

    Args:
        text: One or more lines.
        is_result: Whether the text is a result of the command, which --quiet shows too.
    """
    if is_result or not _is_quiet:
        _print_if_possible(text, sys.stdout)


def show(text: str) -> None:
    """Print the result of a command, which must not get lost.

    Raises:
        OSError: Standard output cannot be written; ``filename`` is ``STDOUT_NAME``.
    """
    with writing_results():
        print(escape(text), file=require_stdout(), flush=True)


@contextlib.contextmanager
def writing_results() -> Iterator[None]:
    """Add the name "standard output" to errors that name no file.

    Raises:
        OSError: Standard output cannot be written; ``filename`` is ``STDOUT_NAME``.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or STDOUT_NAME
        raise


def check_reader() -> None:
    """Check that somebody still reads standard output, if it is a pipe.

    The launcher forwards the output of its ranks, and continues if nobody reads it.  A
    command whose result is this output therefore calls this function at its end.

    Raises:
        OSError: The reader of the pipe has ended.
    """
    try:
        descriptor = require_stdout().fileno()
    except io.UnsupportedOperation:  # This is a notebook and not a pipe.
        return
    waiting = select.poll()
    waiting.register(descriptor, 0)
    if any(event & select.POLLERR for _, event in waiting.poll(0)):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE), STDOUT_NAME)


def note(text: str) -> None:
    """Print a message to stderr, apart from the data on standard output."""
    if not _is_quiet:
        _print_if_possible(text, sys.stderr)


def tell(text: str) -> None:
    """Print a message to stderr, even with --quiet."""
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
    """Return whether progress bars are shown, which needs a terminal."""
    return not _is_quiet and _is_terminal(sys.stderr)


def open_bar(
    what: str, total: int, unit: str, start: int = 0, is_wanted: bool = True
) -> Any:
    """Return a progress bar of tqdm, which is shown if stderr is a terminal.

    Args:
        what: Activity, e.g. ``converting``; empty for a bar without a name.
        total: Total number of units.
        unit: Name of the units, e.g. ``images``.
        start: Number of units that were done before.
        is_wanted: Whether the bar may be shown at all.
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
    """A stream that ignores errors, such as a terminal that was closed."""

    def __init__(self, stream: Optional[TextIO]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        # tqdm clears the bars whose stream equals that of a message.  Without this
        # method, messages would appear within a bar.
        return other is self or other is self._stream

    def write(self, text: str) -> None:
        """Write a text; it gets lost if the stream cannot take it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)  # type: ignore[union-attr]

    def flush(self) -> None:
        """Flush the stream; the text gets lost if the stream cannot take it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()  # type: ignore[union-attr]


def _is_terminal(stream: Optional[TextIO]) -> bool:
    return stream is not None and stream.isatty()


def require_stdout() -> TextIO:
    """Return standard output.

    Raises:
        OSError: Standard output was closed before this program started.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdout


def _print_if_possible(text: str, stream: Optional[TextIO], heading: str = "") -> None:
    if stream is None:  # It was closed before Python started.
        return
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed meanwhile.
        with _clearing_bars(stream):
            print(heading + escape(text), file=stream, flush=True)


def _clearing_bars(stream: TextIO) -> ContextManager[None]:
    """Return a context in which text appears above a progress bar, not within it."""
    if "tqdm" not in sys.modules:  # There is no bar, and the import takes long.
        return contextlib.nullcontext()
    from tqdm import tqdm

    return tqdm.external_write_mode(file=stream)
