"""Files that several processes append to."""

import fcntl
import pathlib
import resource
import threading
from typing import Any

import pytest

from alexnet_estimator import files


def test_a_line_that_does_not_fit_takes_no_other_away(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"old\n")
    lock = fcntl.flock

    def lock_after_another(file: Any, operation: int) -> None:
        with path.open("ab") as other:
            other.write(b"other\n")
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_another)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, limits[1]))
    try:
        with pytest.raises(OSError, match="lines"):
            files.append_bytes(str(path), b"too long\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old\nother\n"


def test_lines_wait_for_each_other(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lines"
    append = threading.Thread(target=files.append_bytes, args=(str(path), b"second\n"))
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        append.start()
        append.join(0.2)
        file.write(b"first\n")
    append.join()
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="/dev/full"):
        files.append_bytes("/dev/full", b"a line\n")
