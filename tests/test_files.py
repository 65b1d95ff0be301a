"""Files and folders appear whole or not at all."""

import contextlib
import csv
import io
import json
import os
import pathlib
from typing import Any, Iterator

import pytest

from alexnet_estimator import files

WRITERS = ["a file", "a folder"]


@contextlib.contextmanager
def replaced(kind: str, path: pathlib.Path, text: str) -> Iterator[pathlib.Path]:
    """Replace a file, or a folder with one file; yield the temporary path."""
    if kind == "a file":
        with files.replacing(str(path)) as file:
            file.write(text.encode())
            yield pathlib.Path(file.name)
    else:
        with files.replacing_folder(str(path)) as folder:
            pathlib.Path(folder, "part").write_text(text)
            yield pathlib.Path(folder)


def text_at(path: pathlib.Path) -> str:
    return (path / "part" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("kind", WRITERS)
def test_of_two_writers_the_last_wins_whole(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "target"
    with replaced(kind, path, "old"):
        assert not path.exists()
    with replaced(kind, path, "first"):
        with replaced(kind, path, "second"):
            assert text_at(path) == "old"
        assert text_at(path) == "second"
    assert text_at(path) == "first"
    assert os.listdir(str(tmp_path)) == ["target"]


@pytest.mark.parametrize("kind", WRITERS)
def test_an_error_leaves_what_was_there(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "target"
    with replaced(kind, path, "old"):
        pass
    with pytest.raises(KeyError):
        with replaced(kind, path, "new"):
            raise KeyError
    assert text_at(path) == "old"
    assert os.listdir(str(tmp_path)) == ["target"]


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(
    kind: str, tmp_path: pathlib.Path
) -> None:
    names = [".target.0123abcd.tmp", ".target.users.tmp", ".other.0123abcd.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / names[0] / "half").write_text("")
    (tmp_path / ".target.89abcdef.tmp").write_text("")
    with replaced(kind, tmp_path / "target", "new") as live:
        with replaced(kind, tmp_path / "target", "other"):
            assert live.exists()
    found = sorted(os.listdir(str(tmp_path)))
    assert found == sorted(["target", *names[1:]])


def test_errors_name_the_path_of_the_user(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "none" / "target"
    with pytest.raises(OSError) as error:
        with files.replacing(str(path)):
            pass
    assert str(error.value) == f"[Errno 2] No such file or directory: '{path}'"
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as error:
        with files.replacing_folder(str(tmp_path / "file")) as folder:
            pathlib.Path(folder, "none", "part").write_text("")
    assert error.value.filename == str(tmp_path / "file")
    assert os.listdir(str(tmp_path)) == ["file"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_regular_files_are_replaced(make: Any, tmp_path: pathlib.Path) -> None:
    make(str(tmp_path / "target"))
    with pytest.raises(OSError, match="a folder|not a regular file"):
        files.write_bytes(str(tmp_path / "target"), b"")
    assert not (tmp_path / "target").is_file()


def test_files_have_the_permissions_of_new_ones(tmp_path: pathlib.Path) -> None:
    old_mask = os.umask(0o027)
    try:
        files.write_bytes(str(tmp_path / "target"), b"")
    finally:
        os.umask(old_mask)
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o640


def test_names_that_are_not_unicode_survive_json() -> None:
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    encoded = files.encode_json({name: [name]})
    assert json.loads(encoded.decode("utf-8")) == {name: [name]}
    assert "é".encode() in encoded


def test_every_cell_of_a_csv_file_stays_a_cell() -> None:
    row = ["a\rb", "a\nb", 'a "b"', "a,b", "=a", "a b", 0.5]
    line = files.encode_csv(row).decode()
    assert line == '"a\rb","a\nb","a ""b""","a,b","=a",a b,0.5\n'
    assert next(csv.reader(io.StringIO(line, newline=""))) == [*row[:-1], "0.5"]
