"""Lists the pictures of a folder or a zip file, and the files that are left out.

Training, conversion and prediction all list folders with this module.  The module
``layouts`` decides which folders are classes.
"""

import locale
import os
import posixpath
import stat
import zipfile
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from alexnet_estimator.console import list_some
from alexnet_estimator.errors import DataError
from alexnet_estimator.records import kinds

MAX_FILE_BYTES = 1 << 28
# Python allocates memory for as many bytes as it is asked to read.  Most files have
# fewer bytes than this, so that reading as many first avoids large allocations.
_USUAL_BYTES = 1 << 20
_MAX_NOTES_BYTES = 1 << 25

# Names, in lower case, of files and folders that operating systems and NAS devices put
# beside the files of the user.
_SYSTEM_NAMES = frozenset(
    "__macosx,@eadir,@recycle,@recently-snapshot,#recycle,#snapshot,$recycle.bin,"
    "recycler,lost+found,system volume information,thumbs.db,ehthumbs.db,"
    "desktop.ini".split(",")
)
_HIDDEN = "hidden or system file"
_NOTHING = "link to a missing file"
# Subfolders of a run.  They are left out if the folder of the pictures is also the
# folder of a run.
_RUN_FOLDERS = ("report", "eval", "logs", "best", "export", "profile")
_ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet has this file.
_UTF8_FLAG = 0x800  # Flag of a zip member whose name is in UTF-8.


class LeftOut(NamedTuple):
    """A file or folder that is not used.

    Attributes:
        path: Path relative to the source; the path of a folder ends with "/".
        reason: Reason, and the remedy if there is one.
        is_loss: Whether pictures may be lost with it, so that the user is warned.
    """

    path: str
    reason: str
    is_loss: bool = False


class Tree(NamedTuple):
    """The files of a source.

    Attributes:
        root: Folder or zip file to which the paths are relative.  It is the source, or
            the folder of the source if that is a single picture.
        pictures: Path and stamp of each picture, sorted by path.  The path has "/"
            between folders.  The stamp changes when the file changes.
        left_out: Files that are not pictures or cannot be used, with the reasons.
        folders: Paths of all folders that were listed, including empty ones.
        classes: Classes of pictures, by path, from a file of annotations beside them.
    """

    root: str
    pictures: List[Tuple[str, str]]
    left_out: List[LeftOut]
    folders: List[str]
    classes: Dict[str, str]

    def describe_lack(self) -> str:
        """Return a message that there are no pictures, and which files there are."""
        seen = list_reasons(self.left_out)
        return f"no pictures; files found: {'; '.join(seen) or 'none'}"


class PictureReader:
    """Reads the files of a folder or a zip file.

    Args:
        source: Folder or zip file.
    """

    def __init__(self, source: str):
        self._source = source
        self._zip: Optional[zipfile.ZipFile] = None
        self.members: Dict[str, zipfile.ZipInfo] = {}
        if os.path.isfile(source):
            self._zip, self.members = _open_zip(source)

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Args:
            path: Path relative to the source.

        Raises:
            Exception: The file cannot be read.  Zip files raise errors of many types.
            ValueError: The file is empty, or too large for a picture.
        """
        data = self.read_head(path, _USUAL_BYTES, MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        if not data:
            raise ValueError("empty file")
        return data

    def read_head(self, path: str, usual_bytes: int, max_bytes: int = 0) -> bytes:
        """Return the first bytes of a file.

        Args:
            path: Path relative to the source.
            usual_bytes: Number of bytes that are read first.
            max_bytes: Largest number of bytes to return if the file has more than
                ``usual_bytes``; 0 to return at most ``usual_bytes``.

        Raises:
            Exception: The file cannot be read.  Zip files raise errors of many types.
        """
        if self._zip:
            opened = self._zip.open(self.members[path])
        else:
            opened = open(os.path.join(self._source, path), "rb")
        with opened as file:
            data = file.read(usual_bytes)
            if len(data) == usual_bytes < max_bytes:
                data += file.read(max_bytes - usual_bytes)
        return data


def open_tree(source: str) -> Tree:
    """List a folder, a zip file or a single picture file.

    Symbolic links in a folder are followed, except for those whose targets are listed
    anyway.  Runs, converted data and the files of operating systems are left out.

    Raises:
        DataError: The source does not exist or cannot be read.
    """
    is_file = os.path.isfile(source)
    is_picture = kinds.kind_by_name(os.path.splitext(source)[1].lower()) == "picture"
    if is_file and (is_picture or not zipfile.is_zipfile(source)):
        folder, name = os.path.split(source)
        pictures = [(name, _stamp(os.stat(source)))]
        return Tree(folder or os.curdir, pictures, [], [], {})
    if not is_file and not os.path.isdir(source):
        if os.path.exists(source):
            raise DataError("neither a folder nor a file", source)
        raise DataError("there is no such folder, zip or picture", source)
    walk = _Walk(source)
    files = sorted(walk.list_zip() if is_file else walk.list_folder())
    files = walk.leave_out_jobs(files)
    pictures = walk.choose_pictures(files)
    classes = walk.read_annotations(files)
    walk.left_out.sort()
    return Tree(source, pictures, walk.left_out, walk.folders, classes)


def list_reasons(left_out: Sequence[LeftOut]) -> List[str]:
    """Return a line for each reason, with the number of files and some examples."""
    by_reason: Dict[str, List[str]] = {}
    for item in left_out:
        by_reason.setdefault(item.reason, []).append(item.path)
    return [
        f"{len(paths)} x {reason} ({list_some(paths, 3, is_counted=False)})"
        for reason, paths in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]


class _Walk:
    """Lists a source and collects the files and folders that are left out."""

    def __init__(self, source: str):
        self.left_out: List[LeftOut] = []
        self.folders: List[str] = []
        self._source, self._reader = source, PictureReader(source)
        # Links that were followed, by their targets.
        self._targets: Dict[str, str] = {}

    def list_zip(self) -> Iterator[Tuple[str, str]]:
        """Yield the path and stamp of every file of a zip file."""
        folders, hidden = set(), set()
        for path, member in self._reader.members.items():
            parts = path.split("/")
            num_shown = next((i for i, x in enumerate(parts) if _is_hidden(x)), -1)
            if num_shown == len(parts) - 1 and path.endswith("/"):
                folders.add(path[:-1])
            elif num_shown >= 0:
                hidden.add("/".join(parts[: num_shown + 1]))
            elif stat.S_ISLNK(member.external_attr >> 16):
                self.left_out.append(LeftOut(path, "link in an archive", True))
            else:
                folders.update(parents_of(path))
                yield path, f"{member.file_size}:{member.CRC}"
        self.left_out += [LeftOut(path, _HIDDEN) for path in sorted(hidden)]
        self.folders = sorted(folders)

    def list_folder(self) -> Iterator[Tuple[str, str]]:
        """Yield the path and stamp of every file of a folder, following links."""
        root = os.path.realpath(self._source)
        stack = [("", root)]
        while stack:
            folder, place = stack.pop()
            if folder:
                self.folders.append(folder)
            try:
                entries = list(os.scandir(os.path.join(root, folder)))
            except OSError as error:
                problem = f"cannot list {os.path.join(root, folder)}: {error.strerror}"
                raise DataError(problem) from error
            for entry in entries:
                path = posixpath.join(folder, entry.name)
                if _is_hidden(entry.name):
                    self.left_out.append(LeftOut(path, _HIDDEN))
                    continue
                target, reason = os.path.join(place, entry.name), ""
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    reason = self._why_not_followed(root, path, target)
                elif target in self._targets:
                    reason = f"the same as {self._targets[target]}, which is used"
                if reason:
                    self.left_out.append(LeftOut(path, reason, reason == _NOTHING))
                elif entry.is_dir():
                    stack.append((path, target))
                elif entry.is_file():
                    yield path, _stamp(entry.stat())
                else:
                    self.left_out.append(LeftOut(path, "neither file nor folder"))

    def _why_not_followed(self, root: str, path: str, target: str) -> str:
        """Return the reason why a link is not followed.

        If the link is followed, the result is empty, and its target is recorded, so
        that other links to the same target are not followed.
        """
        if not os.path.exists(target):
            return _NOTHING
        if f"{root}/".startswith(f"{target}/"):
            return "link to a folder that contains it"
        if target.startswith(f"{root}/"):
            inside = target[len(root) + 1 :]
            # Version control such as git-annex keeps pictures in a hidden folder, which
            # is not listed.  Only the links to them can be listed.
            if not any(map(_is_hidden, inside.split("/"))):
                return "link to something that is listed anyway"
        for place in [target, *parents_of(target)]:
            if place in self._targets:
                return f"the same as {self._targets[place]}, which is used"
        self._targets[target] = path
        return ""

    def leave_out_jobs(self, files: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
        """Leave out the folders of runs and of converted data, which are not classes.

        Args:
            files: Path and stamp of each file.

        Returns:
            Remaining files.
        """
        jobs: Dict[str, str] = {}
        for path, _ in files:
            folder, name = posixpath.split(path)
            if name == "config.json" and self._holds(path, b'"data_digest"'):
                jobs.update(
                    {folder: "a run of this program"}
                    if folder
                    else dict.fromkeys(_RUN_FOLDERS, "part of a run of this program")
                )
            elif name == "dataset.json" and self._holds(path, b'"format_version"'):
                # The cache of a run is the folder RUN.data.  It is left out as a whole,
                # because it may also contain the sample data.
                parent = posixpath.dirname(folder)
                cache = parent if parent.endswith(".data") else folder
                jobs[cache] = "data that this program has converted"
        for item in self.left_out:
            folder, name = posixpath.split(item.path.rstrip("/"))
            if name.startswith(".convert-"):
                jobs[folder] = "data that this program has begun to convert"
        jobs.pop("", None)
        if not jobs:
            return files

        def job_of(path: str) -> str:
            return next((up for up in [path, *parents_of(path)] if up in jobs), "")

        paths = [*(path for path, _ in files), *(item.path for item in self.left_out)]
        self.left_out = [item for item in self.left_out if not job_of(item.path)]
        for job in sorted(set(map(job_of, paths)) - {""}):
            self.left_out.append(LeftOut(f"{job}/", jobs[job]))
        self.folders = [folder for folder in self.folders if not job_of(folder)]
        return [(path, stamp) for path, stamp in files if not job_of(path)]

    def _holds(self, path: str, text: bytes) -> bool:
        return text in self._reader.read_head(path, _MAX_NOTES_BYTES)

    def choose_pictures(self, files: List[Tuple[str, str]]) -> List[Tuple[str, str]]:
        """Return the files that are pictures by name, or else by their first bytes."""
        pictures = []
        for path, stamp in files:
            suffix = posixpath.splitext(path)[1].lower()
            kind = kinds.kind_by_name(suffix)
            if not kind:
                try:
                    kind = kinds.kind_of(self._reader.read_head(path, kinds.HEAD_BYTES))
                except Exception as error:  # A damaged member can raise any error.
                    reason = f"unreadable: {error}"
                    self.left_out.append(LeftOut(path, reason, True))
                    continue
            reason = kinds.explain_undecodable(kind)
            if kind == "picture" or kind in kinds.DECODED:
                pictures.append((path, stamp))
            elif reason:
                self.left_out.append(LeftOut(path, reason, True))
            else:
                reason = f"not a picture: {suffix or 'no suffix'}"
                self.left_out.append(LeftOut(path, reason))
        return pictures

    def read_annotations(self, files: List[Tuple[str, str]]) -> Dict[str, str]:
        """Return the classes of pictures, by path, from Tiny ImageNet's annotations."""
        classes = {}
        for path, _ in files:
            folder, name = posixpath.split(path)
            if name == _ANNOTATIONS:
                text = self._reader.read_head(path, _MAX_NOTES_BYTES)
                for line in text.decode("utf-8", "surrogateescape").splitlines():
                    picture, class_name, *_ = [*line.split("\t"), ""]
                    if class_name and "/" not in class_name:
                        classes[posixpath.join(folder, "images", picture)] = class_name
        return classes


def _stamp(state: os.stat_result) -> str:
    return f"{state.st_size}:{state.st_mtime_ns}"


def parents_of(path: str) -> List[str]:
    """Return the folders that contain a path, from the innermost to the outermost."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _open_zip(source: str) -> Tuple[zipfile.ZipFile, Dict[str, zipfile.ZipInfo]]:
    """Open a zip file.

    According to the standard, names without the flag for UTF-8 are in code page 437,
    and Python decodes them accordingly.  Many programs use the encoding of their
    machine instead, so that the encoding is guessed.

    Returns:
        The zip file, and its members by name, with "/" between folders.

    Raises:
        DataError: The file is not a zip file, or its directory is damaged.
    """
    try:
        archive = zipfile.ZipFile(source)
        raw = {
            member.filename: member.filename.encode("cp437")
            for member in archive.infolist()
            if not member.flag_bits & _UTF8_FLAG and not member.filename.isascii()
        }
        encoding = _guess_encoding(list(raw.values()))
        names = [
            raw[name].decode(encoding) if name in raw else name
            for name in archive.namelist()
        ]
    except Exception as error:  # A damaged archive can raise any error.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot be read as a zip file: {reason}", source) from error
    # Old programs for Windows separate folders by backslashes.
    if not any("/" in name for name in names):
        names = [name.replace("\\", "/") for name in names]
    return archive, dict(zip(names, archive.infolist()))


def _guess_encoding(names: Sequence[bytes]) -> str:
    for encoding in ("utf-8", locale.getpreferredencoding(False), "gbk"):
        try:
            text = "".join(name.decode(encoding) for name in names)
        except (UnicodeDecodeError, LookupError):
            continue
        # Nearly all bytes are valid GBK.  GBK is therefore accepted only if most of the
        # decoded characters are common ones, which are those of GB 2312.
        signs = [sign for sign in text if not sign.isascii()]
        num_common = sum(bool(sign.encode("gb2312", "ignore")) for sign in signs)
        if encoding != "gbk" or 2 * num_common > len(signs):
            return encoding
    return "cp437"


def _is_hidden(name: str) -> bool:
    # The name is "" in front of the "/" of an absolute path in a zip file.  Names that
    # start with a dot include "..", which would lead out of the source.
    return name == "" or name.startswith(".") or name.lower() in _SYSTEM_NAMES
