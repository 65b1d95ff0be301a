"""Which picture belongs to which class: the folder layouts that people have."""

import collections
import os
import re
import zipfile
from typing import Counter, Iterator, List, NamedTuple, Set, Tuple

from alexnet_estimator.errors import DataError
from alexnet_estimator.records.dataset import TRAIN, VALIDATION

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
KNOWN_LAYOUTS = """known layouts, as a folder or a zip:
    CLASS/*.jpg
    train/CLASS/*.jpg and validation/CLASS/*.jpg (or val, valid, test)
    train/CLASS.NUMBER.jpg (Kaggle's cats and dogs)
    PetImages/CLASS/*.jpg (Microsoft's cats and dogs)"""
_HELD_OUT_FOLDERS = ("validation", "val", "valid", "test")
_UNLABELLED_FOLDER = "test1"  # Kaggle's.
_KAGGLE_NAME = re.compile(r"(.+)\.\d+\.\w+")
_MAX_PICTURE_BYTES = 1 << 28
_USUAL_BYTES = 1 << 20  # Python first makes room for as much as may be read.
_NOT_FOLLOWED = "links (not followed)"


class Picture(NamedTuple):
    """A picture file of known class.

    Attributes:
        path: relative to the source, with "/".
        stamp: changes when the file changes.
        label: index of its class.
        split: ``train`` or ``validation``.
    """

    path: str
    stamp: str
    label: int
    split: str


class PictureSet(NamedTuple):
    """All pictures of a source, sorted by path.

    Attributes:
        source: a folder or a zip file.
        class_names: in the order of the labels.
        pictures: those that belong to a class.
        num_ignored: pictures outside the layout, and links that are not followed.
        has_validation: whether the layout itself holds pictures out.
    """

    source: str
    class_names: Tuple[str, ...]
    pictures: Tuple[Picture, ...]
    num_ignored: int
    has_validation: bool


class Files(NamedTuple):
    """What a folder or a zip holds, sorted by path.

    Attributes:
        pictures: path, relative to the source, and stamp of each; by suffix alone.
        not_followed: paths of links that lead out of a folder, and of pipes.
        others: how often each other suffix was seen.
    """

    pictures: List[Tuple[str, str]]
    not_followed: List[str]
    others: Counter[str]

    def describe_lack(self) -> str:
        """Say that there are no pictures, and what there is."""
        seen = [f"{n} {suffix}" for suffix, n in self.others.most_common(5)]
        if self.not_followed:
            seen.append(f"{len(self.not_followed)} {_NOT_FOLLOWED}")
        return f"no pictures; files seen: {', '.join(seen) or 'none'}"


class _Item(NamedTuple):
    """A picture file while its layout is being recognised.

    ``parts`` is what is left of its path below the folders that are understood.
    """

    path: str
    stamp: str
    parts: Tuple[str, ...]


_Labelled = List[Tuple[_Item, str]]


def find_pictures(source: str) -> PictureSet:
    """List the pictures of a folder or a zip, with class and split.

    Args:
        source: see ``KNOWN_LAYOUTS``; one more folder around them does no harm.

    Raises:
        DataError: no pictures, fewer than two classes, or classes without training
            pictures, with what was seen.
    """
    files = list_files(source)
    if not files.pictures:
        raise DataError(f"{files.describe_lack()}; {KNOWN_LAYOUTS}", source)
    items = [
        _Item(path, stamp, tuple(path.split("/"))) for path, stamp in files.pictures
    ]
    train, held_out = _recognise(items)
    names = sorted({name for _, name in train})
    _check_classes(source, names, held_out, items)
    labels = {name: label for label, name in enumerate(names)}
    pictures = sorted(
        Picture(item.path, item.stamp, labels[name], split)
        for split, labelled in ((TRAIN, train), (VALIDATION, held_out))
        for item, name in labelled
    )
    return PictureSet(
        source=source,
        class_names=tuple(names),
        pictures=tuple(pictures),
        num_ignored=len(items) - len(pictures) + len(files.not_followed),
        has_validation=bool(held_out),
    )


def list_files(source: str) -> Files:
    """List the files of a folder or a zip, without regard to its layout.

    Raises:
        DataError: it cannot be read.
    """
    files = Files([], [], collections.Counter())
    for path, stamp in sorted(_list_files(source)):
        suffix = os.path.splitext(path)[1].lower()
        if stamp == _NOT_FOLLOWED:
            files.not_followed.append(path)
        elif suffix in SUFFIXES:
            files.pictures.append((path, stamp))
        else:
            files.others[suffix or "(no suffix)"] += 1
    return files


class PictureReader:
    """Reads the files of a source, folder or zip."""

    def __init__(self, source: str):
        self._source = source
        self._zip = zipfile.ZipFile(source) if os.path.isfile(source) else None

    def read(self, path: str) -> bytes:
        """Return a file's bytes; ``path`` is relative to the source.

        Raises:
            Exception: of many types, where the file cannot be read.
            ValueError: it is empty, or larger than is sensible for a picture.
        """
        if self._zip:
            opened = self._zip.open(path)
        else:
            opened = open(os.path.join(self._source, path), "rb")
        with opened as file:
            data = file.read(_USUAL_BYTES)
            if len(data) == _USUAL_BYTES:
                data += file.read(_MAX_PICTURE_BYTES + 1 - _USUAL_BYTES)
        if len(data) > _MAX_PICTURE_BYTES:
            raise ValueError(f"larger than {_MAX_PICTURE_BYTES} bytes")
        if not data:
            raise ValueError("empty file")
        return data


def _list_files(source: str) -> Iterator[Tuple[str, str]]:
    """Yield path and stamp of every file that is not hidden."""
    if os.path.isdir(source):
        yield from _list_folder(source)
    elif zipfile.is_zipfile(source):
        yield from _list_zip(source)
    elif os.path.exists(source):
        raise DataError("neither a folder nor a zip file", source)
    else:
        raise DataError("there is no such folder or zip file", source)


def _list_folder(source: str) -> Iterator[Tuple[str, str]]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error

    root = os.path.realpath(source)
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        links = [name for name in subfolders if os.path.islink(f"{folder}/{name}")]
        for name in names + links:
            if not _is_hidden(name):
                path = os.path.join(folder, name)
                yield path[len(root) :].lstrip("/"), _stamp(root, path)


def _stamp(root: str, path: str) -> str:
    """Describe a file; links out of the source, folders and pipes are refused."""
    leads_out = os.path.islink(path) and not os.path.realpath(path).startswith(
        os.path.join(root, "")
    )
    if leads_out or not os.path.isfile(path):
        return _NOT_FOLLOWED
    status = os.stat(path)
    return f"{status.st_size}:{status.st_mtime_ns}"


def _list_zip(source: str) -> Iterator[Tuple[str, str]]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = {member.filename: member for member in archive.infolist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot be read as a zip file: {error}", source) from error
    for name, member in members.items():
        if not member.is_dir() and not any(map(_is_hidden, name.split("/"))):
            yield name, f"{member.file_size}:{member.CRC}"


def _is_hidden(name: str) -> bool:
    # In a zip also "..", and "" in front of the "/" of an absolute path.
    return name.startswith(".") or name in ("", "__MACOSX")


def _recognise(items: List[_Item]) -> Tuple[_Labelled, _Labelled]:
    """Return the pictures of training and those that the layout holds out."""
    tops = _tops(items)
    while len(tops) == 1 and not _kaggle_names(items):
        items = _below(items, *tops)
        tops = _tops(items)
    by_name = {top.lower(): top for top in tops}
    beside = {*_HELD_OUT_FOLDERS, _UNLABELLED_FOLDER}
    if "train" not in by_name or not beside & set(by_name):
        return _label(items), []
    train = _label(_below(items, by_name["train"]))
    for name in _HELD_OUT_FOLDERS:
        held_out = _label(_below(items, by_name.get(name, "")))
        if held_out:
            return train, held_out
    return train, []


def _label(items: List[_Item]) -> _Labelled:
    """Name the class of each picture: its folder, or Kaggle's file names."""
    if len(_tops(items)) < 2:
        named = _kaggle_names(items)
        if named:
            return named
    return [(item, item.parts[0]) for item in items if len(item.parts) > 1]


def _kaggle_names(items: List[_Item]) -> _Labelled:
    matches = (
        (item, _KAGGLE_NAME.fullmatch(item.parts[0]))
        for item in items
        if len(item.parts) == 1
    )
    return [(item, match.group(1)) for item, match in matches if match]


def _tops(items: List[_Item]) -> Set[str]:
    return {item.parts[0] for item in items if len(item.parts) > 1}


def _below(items: List[_Item], top: str) -> List[_Item]:
    return [
        item._replace(parts=item.parts[1:])
        for item in items
        if len(item.parts) > 1 and item.parts[0] == top
    ]


def _check_classes(
    source: str, names: List[str], held_out: _Labelled, items: List[_Item]
) -> None:
    if len(names) < 2:
        folders = collections.Counter(os.path.dirname(item.path) for item in items)
        seen = ", ".join(f"{n} in {path or '.'}/" for path, n in folders.most_common(5))
        classes = f"one class ({names[0]})" if names else "no classes"
        raise DataError(
            f"{classes}, two are needed; pictures seen: {seen}; {KNOWN_LAYOUTS}", source
        )
    strange = sorted({name for _, name in held_out} - set(names))
    if strange:
        raise DataError(
            f"held-out pictures of classes that training lacks: {', '.join(strange)}",
            source,
        )
