"""Zips with the names that people gave their files."""

import collections
import locale
import zipfile
from typing import Counter, Dict, List, Sequence, Tuple

from alexnet_estimator.errors import DataError

_UTF8_FLAG = 0x800


def open_zip(source: str) -> Tuple[zipfile.ZipFile, Dict[str, zipfile.ZipInfo]]:
    """Open a zip; return it and its members by name, with "/" between folders.

    Raises:
        DataError: The file is no zip, or its directory is damaged.
    """
    try:
        archive = zipfile.ZipFile(source)
        members = archive.infolist()
        names = _decode_names(members)
    except Exception as error:  # Damaged archives fail in many ways.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot be read as a zip file: {reason}", source) from error
    return archive, dict(zip(names, members))


def _decode_names(members: Sequence[zipfile.ZipInfo]) -> List[str]:
    """Decode the names of a zip as the machine wrote them.

    Without the flag for UTF-8 they are said to be in code page 437, which Python takes
    at its word; programs write what their machine speaks.
    """
    raw = {
        member.filename: member.filename.encode("cp437")
        for member in members
        if not member.flag_bits & _UTF8_FLAG and not _is_ascii(member.filename)
    }
    encoding = _guess_encoding(list(raw.values()))
    names = [
        raw[member.filename].decode(encoding)
        if member.filename in raw
        else member.filename
        for member in members
    ]
    if not any("/" in name for name in names):  # Windows programs of old.
        names = [name.replace("\\", "/") for name in names]
    return names


def _guess_encoding(names: Sequence[bytes]) -> str:
    local = locale.getpreferredencoding(False)
    for encoding in ("utf-8", local, "gbk"):
        try:
            texts = [name.decode(encoding) for name in names]
        except (UnicodeDecodeError, LookupError):
            continue
        # Nearly everything is valid GBK: what it says must be made of common signs.
        if encoding != "gbk" or _is_common_chinese("".join(texts)):
            return encoding
    return "cp437"


def _is_common_chinese(text: str) -> bool:
    signs: Counter[str] = collections.Counter(filter(lambda c: not _is_ascii(c), text))
    common = sum(n for sign, n in signs.items() if sign.encode("gb2312", "ignore"))
    return 2 * common > sum(signs.values())


def _is_ascii(text: str) -> bool:
    return all(sign < "\x80" for sign in text)
