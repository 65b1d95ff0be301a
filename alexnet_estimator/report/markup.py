"""HTML in which no text can become a tag: what is not ``Markup`` is escaped."""

import html
from typing import Any, Iterable, Sequence

_VOID = ("img", "link", "meta")


class Markup(str):
    """HTML; every other string is text."""


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """Return an element.

    Args:
        tag: its name.
        *children: markup, or text or numbers that are escaped; None is left out.
        **attributes: ``class_`` means class, ``aria_label`` aria-label; None is left
            out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Markup:
    """Return markup and escaped text, one after the other."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(str(child))
            for child in children
            if child is not None
        )
    )


def table(
    caption: str,
    header: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    class_: str = "numbers",
) -> Markup:
    """Return a table that scrolls by itself where the page is too narrow.

    Args:
        caption: what the table shows.
        header: of the columns.
        rows: the first cell names the row; a cell may be a whole ``td``.
        class_: ``numbers`` are aligned to the right, ``texts`` to the left.
    """
    head = join(element("th", cell, scope="col") for cell in header)
    body = join(_row(row) for row in rows)
    content = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", head)),
        element("tbody", body),
        class_=class_,
    )
    # The focus lets keyboards scroll.
    return element(
        "div", content, class_="scroll", tabindex=0, role="region", aria_label=caption
    )


def _row(row: Sequence[Any]) -> Markup:
    cells = [_cell(cell) for cell in row[1:]]
    return element("tr", element("th", row[0], scope="row"), *cells)


def _cell(cell: Any) -> Markup:
    is_whole = isinstance(cell, Markup) and cell.startswith("<td")
    return cell if is_whole else element("td", cell)


def details(summary: Any, *children: Any) -> Markup:
    """Return content that is shown on demand."""
    return element("details", element("summary", summary), *children)
