"""Expansion and checks of the paths that a user gives."""

import os
import re
import unicodedata
from typing import Dict, Mapping

from alexnet_estimator.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def expand_paths(
    given: Mapping[str, str], is_any_name_allowed: bool = False
) -> Dict[str, str]:
    """Return paths with ``~`` and ``~user`` expanded.

    The shell expands ``$NAME``.  ``-`` and ``sample:NAME`` stay unchanged.

    Args:
        given: Paths by the name of the flag, field or argument that holds them.
        is_any_name_allowed: Whether to allow names that TensorFlow cannot open: those
            with control characters or with bytes that are not UTF-8.

    Raises:
        ConfigError: Paths cannot be used; the message names all of them.
    """
    expanded, problems = {}, []
    for name, text in given.items():
        try:
            if not is_any_name_allowed:
                _check_letters(text)
            expanded[name] = _expand(text)
        except ValueError as error:
            problems.append(f"{name} is {ascii(text)}: {error}")
    if problems:
        raise ConfigError(problems, "command line")
    return expanded


def _check_letters(text: str) -> None:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError(
            "control characters and bytes that are not UTF-8 are not supported: rename "
            "it, or create a link to it with another name (`ln -s`)"
        )


def _expand(text: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme and scheme.group(1).lower() == "file":
        raise ValueError(f"write {text[scheme.end() :]}")
    if scheme:
        raise ValueError(
            "URLs are not supported: mount the storage or copy the data to this "
            "machine, and give the path of the folder"
        )
    if not text.startswith("~") or os.path.lexists(text):
        return text
    expanded = os.path.expanduser(text)
    if expanded == text:
        user = text[1:].partition("/")[0]
        raise ValueError(f"there is no user {user!r}; write ./{text} for a file")
    return expanded
