"""The pictures that people name: files, folders, zips, and lists of these."""

import os
import zipfile
from typing import List, NamedTuple, Sequence, Union

from alexnet_estimator.errors import DataError
from alexnet_estimator.records import layouts

_LIST_SUFFIX = ".txt"


class Reject(NamedTuple):
    """A picture that cannot be read, and why."""

    path: str
    reason: str


class Source(NamedTuple):
    """A picture that may be readable.

    Attributes:
        path: Path in the results: as it was given, in a folder or a zip below that.
        reader: Reader of the folder or zip.
        path_in_reader: Path of the picture there.
    """

    path: str
    reader: layouts.PictureReader
    path_in_reader: str


Found = Union[Source, Reject]


def find_sources(sources: Sequence[str]) -> List[Found]:
    """Find pictures, in order; those of a folder or a zip sorted by path.

    Args:
        sources: Files, folders, zips, and ``.txt`` files that name one of these in each
            line; or one of these alone.

    Returns:
        All pictures.  What a list names and does not exist, and links that lead out of
        a folder, are rejects.

    Raises:
        DataError: A source does not exist, or there are no pictures.
    """
    found: List[Found] = []
    lacks: List[str] = []  # Why sources have no pictures.
    for source in [sources] if isinstance(sources, str) else sources:
        if not source.lower().endswith(_LIST_SUFFIX) or os.path.isdir(source):
            found += _find(source, lacks)
            continue
        for line in _read_list(source):
            try:
                found += _find(line, lacks)
            except DataError as error:
                found.append(Reject(line, error.problems[0]))
    if not found:
        raise DataError(lacks or "no pictures: name files, folders, zips or a list")
    return found


def _read_list(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error


def _find(source: str, lacks: List[str]) -> List[Found]:
    """Return the pictures of one source; say in ``lacks`` why there are none."""
    is_picture = os.path.splitext(source)[1].lower() in layouts.SUFFIXES
    is_file = os.path.isfile(source)
    if is_file and (is_picture or not zipfile.is_zipfile(source)):
        folder, name = os.path.split(source)
        return [Source(source, layouts.PictureReader(folder or os.curdir), name)]
    if not is_file and not os.path.isdir(source):
        raise DataError("there is no such file, folder or zip", source)
    files = layouts.list_files(source)
    if not files.pictures:
        lacks.append(f"{source}: {files.describe_lack()}")
    reader = layouts.PictureReader(source)
    pictures = [
        Source(os.path.join(source, path), reader, path) for path, _ in files.pictures
    ]
    links = [
        Reject(os.path.join(source, path), "leads out of the folder: not followed")
        for path in files.not_followed
    ]
    return [*pictures, *links]
