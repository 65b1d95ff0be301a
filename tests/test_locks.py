"""Locks, and files that several processes append to."""

import contextlib
import errno
import fcntl
import os
import pathlib
import resource
import threading
from typing import Any

import pytest

from alexnet_estimator import locks
from alexnet_estimator.errors import ConfigError


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
            locks.append_bytes(str(path), b"too long\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old\nother\n"


def test_lines_wait_for_each_other(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lines"
    append = threading.Thread(target=locks.append_bytes, args=(str(path), b"second\n"))
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        append.start()
        append.join(0.2)
        file.write(b"first\n")
    append.join()
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="/dev/full"):
        locks.append_bytes("/dev/full", b"a line\n")


def test_the_lock_of_a_run_says_who_has_it(tmp_path: pathlib.Path) -> None:
    with locks.use_run(str(tmp_path)):
        with pytest.raises(ConfigError, match=rf"\(process {os.getpid()} on \w"):
            with locks.use_run(str(tmp_path)):
                pass
    with locks.use_run(str(tmp_path)):
        pass


def test_a_folder_that_is_none_cannot_be_locked(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/.lock: cannot be written: Not a dir"):
        with locks.use_run(str(tmp_path / "file")):
            pass


def test_every_reader_protects_its_files(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "data")
    pathlib.Path(path).touch()
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    for reader in (first, second):
        reader.enter_context(locks.keep_unchanged([path, str(tmp_path / "missing")]))
    for reader in (first, second):
        with pytest.raises(ConfigError, match="a job reads these data"):
            locks.refuse_if_read(path)
        reader.close()
    locks.refuse_if_read(path)


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_nothing_can_be_locked_work_goes_on_after_one_warning(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: int,
) -> None:
    def refuse(file: Any, operation: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = str(tmp_path / "lines")
    with locks.use_run(str(tmp_path)):
        for line in (b"first\n", b"second\n"):
            locks.append_bytes(path, line)
    with locks.wait_for_folder(str(tmp_path)):
        pass
    assert pathlib.Path(path).read_bytes() == b"first\nsecond\n"
    (warning,) = capsys.readouterr().err.splitlines()
    expected = f"files in {tmp_path} cannot be locked ({os.strerror(reason)})"
    assert warning.startswith(f"warning: {expected}")
