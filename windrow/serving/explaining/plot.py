"""Pictures of explanations: HTML and SVG made here, without scripts and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

SHOWN = 12
_ROW, _LABEL, _WIDTH, _LONGEST = 22, 260, 640, 34
_MIDDLE, _HALF = 430, 145
_UP, _DOWN = "#1b7f5c", "#b3402a"  # readable on white and on black, and differing in lightness too
_CARD = "border:1px solid #8886;border-radius:6px;padding:8px 12px;max-width:760px;font-size:13px"


def bars(rows: Sequence[tuple[str, float]], *, title: str) -> str:
    """Return an SVG picture: a bar to the right for what adds, to the left for what takes away.

    Parameters
    ----------
    rows
        Label and amount, in the order in which they are shown; behind the twelfth they are one bar.
    title
        Read out by screen readers, and shown above.

    Examples
    --------
    >>> picture = bars([("amount = 20", 0.5), ("limit < 3", -0.25)], title="Contributions")
    >>> picture.count("<rect"), "limit &lt; 3" in picture, "-0.25" in picture
    (2, True, True)
    """
    shown = _shown(rows)
    largest = max((abs(amount) for _, amount in shown), default=0.0) or 1.0
    drawn = "".join(_bar(at, label, amount, largest) for at, (label, amount) in enumerate(shown))
    height = _ROW * (len(shown) + 1) + 8
    axis = (
        f'<line x1="{_MIDDLE}" x2="{_MIDDLE}" y1="{_ROW}" y2="{height - 4}" stroke="currentColor" stroke-opacity=".5"/>'
    )
    head = f'<text x="0" y="14" font-weight="600">{escape(title)}</text>'
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {height}" width="100%" style="max-width:{_WIDTH}px" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="currentColor">{head}{drawn}{axis}</svg>'
    )


def card(release: str, headline: str, inside: str) -> str:
    """Return a card around a picture or a table that is HTML already.

    Examples
    --------
    >>> "a &lt; b" in card("churn-1", "a < b", "")
    True
    """
    return f'<div style="{_CARD}"><b>{escape(headline)}</b> <small>release {escape(release)}</small>{inside}</div>'


def text(said: str) -> str:
    """Return one paragraph."""
    return f'<p style="margin:4px 0">{escape(said)}</p>'


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Return a table.

    Examples
    --------
    >>> table([("limit", "1", "2")], ("feature", "is", "were"))
    '<table><tr><th>feature<th>is<th>were<tr><td>limit<td>1<td>2</table>'
    """
    lines = ["".join(f"<td>{escape(cell)}" for cell in row) for row in rows]
    titles = "".join(f"<th>{escape(name)}" for name in head)
    return f"<table><tr>{titles}{''.join(f'<tr>{line}' for line in lines)}</table>"


def _shown(rows: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    if len(rows) <= SHOWN:
        return list(rows)
    rest = rows[SHOWN - 1 :]
    return [*rows[: SHOWN - 1], (f"{len(rest)} others", sum(amount for _, amount in rest))]


def _bar(at: int, label: str, amount: float, largest: float) -> str:
    y, length = _ROW * (at + 1), _HALF * abs(amount) / largest
    x = _MIDDLE if amount >= 0 else _MIDDLE - length
    colour = _UP if amount >= 0 else _DOWN
    short = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
    return (
        f'<g><title>{escape(label)}: {amount:+.6g}</title><text x="{_LABEL}" y="{y + 15}" text-anchor="end">{escape(short)}</text>'
        f'<rect x="{x:.1f}" y="{y + 3}" width="{max(length, 0.5):.1f}" height="{_ROW - 6}" rx="2" fill="{colour}"/>'
        f'<text x="{_WIDTH}" y="{y + 15}" text-anchor="end">{amount:+.4g}</text></g>'
    )
