"""Entries of docstrings begin with a noun phrase and end with a full stop."""

import ast
import pathlib
import re
from typing import Iterator, List, Tuple

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "alexnet_estimator"
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")
ENTRY = re.compile(r"^    [\w.*]+: (.*)$")
# An entry names a thing, so it must not begin with one of these words.
HEADLESS = re.compile(
    r"(at|by|for|from|in|of|on|that|to|what|where|which|who|whose|with)\b",
    re.IGNORECASE,
)
# The type of a tensor stays in small letters: float32 [batch].
START = re.compile(r"[A-Z\d`\"({]|(u?int|float)\d*\b|bool\b|string\b")


def entries_of(docstring: str) -> Iterator[str]:
    """Yield the texts of the entries under ``Args`` and the other sections."""
    section, entry = "", ""  # type: str, str
    for line in [*docstring.splitlines(), "end"]:
        found, begins = SECTION.match(line), ENTRY.match(line)
        is_listed = section in ("Args", "Attributes", "Raises")
        if found or begins and is_listed or not line.startswith(" "):
            if entry and line:
                yield entry
                entry = ""
            if line:
                section = found.group(1) if found else section if begins else ""
        if begins and is_listed:
            entry = begins.group(1)
        elif section and not found and line:
            entry = f"{entry} {line.strip()}".strip()


def problems_of(code: str) -> List[str]:
    """Return the entries in a module that break the rules."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings: Iterator[Tuple[ast.AST, str]] = (
        (node, ast.get_docstring(node) or "")
        for node in ast.walk(ast.parse(code))
        if isinstance(node, kinds)
    )
    return [
        f"{getattr(node, 'name', 'module')}: {entry}"
        for node, docstring in docstrings
        for entry in entries_of(docstring)
        if HEADLESS.match(entry) or not START.match(entry) or not entry.endswith(".")
    ]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_the_entries_of_docstrings_are_sentences(path: pathlib.Path) -> None:
    assert problems_of(path.read_text(encoding="utf-8")) == []
