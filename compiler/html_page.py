"""The pieces of a page that loads nothing from anywhere: its style, cards and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain, repeat

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5d6670; --line: #d9dee3; --page: #fff;
        --card: #f5f7f8; --good: #14734f; --bad: #b3261e; --note: #8a5300; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4ae; --line: #343b42; --page: #15181b; --card: #1e2327;
          --good: #5fcf9f; --bad: #ff8a80; --note: #f0b45c; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
       margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
p { margin: .25rem 0; }
.soft, .idle, thead th, figcaption, .card small { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .note { color: var(--note); }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: grid; gap: .75rem; margin: 1.25rem 0;
         grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
        padding: .75rem 1rem; }
.card b { display: block; font-size: 1.35rem; line-height: 1.3; }
.card small { display: block; }
.warnings { border-left: .25rem solid var(--note); background: var(--card); margin: 1rem 0;
            padding: .5rem 1rem .5rem 2rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--soft); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem 1.25rem .3rem 0; text-align: left;
         vertical-align: top; }
th { font-weight: 600; white-space: nowrap; } thead th { font-weight: 400; }
.number { text-align: right; white-space: nowrap; }
.text { min-width: 14rem; overflow-wrap: anywhere; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; }
summary { cursor: pointer; } details[open] summary { margin-bottom: .5rem; }
details table { font-size: .9rem; margin: 0 0 .75rem; }
details th { font-weight: 400; min-width: 8rem; overflow-wrap: anywhere; white-space: normal; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
figure { margin: 0; flex: 1 1 22rem; }
svg { max-width: 100%; height: auto; }
@media (max-width: 30rem) {
  table { font-size: .85rem; } th, td { padding-right: .75rem; }
}
"""
_ROW, _COLUMN = ' scope="row"', ' scope="col"'


def page(title: str, body: Iterable[str]) -> str:
    """A whole page, for screens wide and narrow, light and dark; ``body`` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def card(name: str, big: str, small: Sequence[str], style: str) -> str:
    """One fact to be seen first: its name, what it comes to, and lines of what stands behind it."""
    lines = "<br>".join(map(escape, small))
    return (
        f'<div class="card">{escape(name)}<b class="{style}">{escape(big)}</b>'
        f"<small>{lines}</small></div>"
    )


def table(
    head: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    idle: Iterable[bool] = (),
) -> str:
    """A table whose first column names the rows; ``head`` names the others, with their class.

    Rows that are ``idle`` are shown paler.
    """
    lines = [f'<p class="soft">{escape(caption)}</p>'] if caption else []
    name = escape(caption or f"Table of {', '.join(name for name, _ in head if name)}", quote=True)
    lines.append(f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table>')
    if any(name for name, _ in head):
        cells = "".join(_cell("th", name, style, _COLUMN) for name, style in head)
        lines.append(f"<thead><tr><td></td>{cells}</tr></thead>")
    lines.append("<tbody>")
    for (first, *rest), pale in zip(rows, chain(idle, repeat(False)), strict=False):
        styled = zip(rest, head, strict=True)
        cells = "".join(_cell("td", text, style) for text, (_, style) in styled)
        row = '<tr class="idle">' if pale else "<tr>"
        lines.append(f"{row}{_cell('th', first, '', _ROW)}{cells}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def facts(rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """A table of names and what there is to say of each."""
    return table([("", "text")], rows, caption=caption)


def _cell(tag: str, text: str, style: str, more: str = "") -> str:
    attributes = (f' class="{style}"' if style else "") + more
    return f"<{tag}{attributes}>{escape(text)}</{tag}>"
