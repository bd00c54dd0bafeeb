"""The frame of every page: heading, ways to the other pages, style, and headers that let a browser fetch nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from windrow.errors import RequestError
from windrow.models.style import STYLE
from windrow.serving.answers import HTML, Reply

_CSS = STYLE + Path(__file__).with_name("style.css").read_text(encoding="utf-8").replace("\n", "")
_HASH = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M1 4h14M1 8h14M1 12h9' stroke='%234f46e5' stroke-width='2.4'/%3E%3C/svg%3E"
# No script, no frame, no picture but our own sign. Pictures of explanations carry their width as an attribute.
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; style-src-attr 'unsafe-inline'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
SAFE = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", _POLICY.encode()),
    # Without a referrer to ourselves, browsers send the forms of these pages with "Origin: null": as somebody else's.
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)

Cell = object
"""Text that is escaped, or `Html`."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def document(
    title: str, body: str, *, status: int = 200, services: Iterable[str] = (), here: str = "", leave: str = "", again: str = ""
) -> Reply:  # fmt: skip
    """Return a page.

    Parameters
    ----------
    body
        HTML of its main part.
    services, here
        Those that have pages, and the address of this one.
    leave
        HTML of the form that ends the session.
    again
        The address that a browser goes to by itself in a second, where something is still being made.
    """
    refresh = f'<meta http-equiv="refresh" content="1;url={escape(again)}">' if again else ""
    ways = [("Services", "/ui"), *((name, f"/ui/{name}") for name in services), ("Lineage", "/ui/lineage")]
    links = "".join(_link(text, way, here) for text, way in ways) if here else ""
    nav = f'<nav aria-label="Pages">{links}</nav>' if links else ""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'{refresh}<title>{escape(title)} - windrow</title><link rel="icon" href="{_ICON}"><style>{_CSS}</style></head><body>'
        f'<a class="skip" href="#main">Skip to the content</a><header class="top"><div><a class="brand" href="/ui">windrow</a>{nav}{leave}</div></header>'
        f'<main id="main" tabindex="-1">{body}</main></body></html>'
    )
    return Reply(status, page.encode(), HTML, more=SAFE)


def problem_page(error: RequestError) -> Reply:
    """Return a page that says what went wrong."""
    step = f"<p>Next: {escape(error.next_step)}.</p>" if error.next_step else ""
    back = '<p><a href="/ui">To the services</a></p>'
    body = f'<h1>That did not work</h1><p role="alert">{escape(error.what)}.</p>{step}{back}'
    return document("Problem", body, status=error.status, here="/")


def section(title: str, body: str, *, id: str, wide: bool = False) -> str:
    """Return one part of a page under its heading."""
    kind = ' class="wide"' if wide else ""
    return f'<section{kind} aria-labelledby="{id}"><h2 id="{id}" tabindex="-1">{escape(title)}</h2>{body}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, name: str) -> str:
    """Return a table that can be moved sideways by mouse and keyboard; `name` is read out.

    Examples
    --------
    >>> "<td>a &lt; b<td><b>c</b>" in table(["x", "y"], [["a < b", Html("<b>c</b>")]], name="Two")
    True
    """
    top = "".join(f'<th scope="col">{escape(cell)}' for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{safe(cell)}" for cell in row) for row in rows)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}"><table><thead><tr>{top}</thead><tbody>{lines}</tbody></table></div>'


def facts(told: Mapping[str, Cell]) -> str:
    """Return named values; those that are empty are left out."""
    pairs = "".join(f"<dt>{escape(name)}<dd>{safe(value)}" for name, value in told.items() if value not in ("", None))
    return f'<dl class="facts">{pairs}</dl>'


def safe(cell: Cell) -> str:
    """Return a cell as HTML."""
    return cell if isinstance(cell, Html) else escape(str(cell))


def link(text: str, address: str) -> Html:
    """Return a link."""
    return Html(f'<a href="{escape(address)}">{escape(text)}</a>')


def note(text: str) -> str:
    """Return a paragraph of lesser weight."""
    return f'<p class="hint">{escape(text)}</p>'


def _link(text: str, way: str, here: str) -> str:
    current = ' aria-current="page"' if way == here else ""
    return f'<a href="{escape(way)}"{current}>{escape(text)}</a>'
