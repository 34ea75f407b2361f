"""The parts of a page: text that is escaped, tables, cards and sections, in one style for screens, phones and paper.

A page holds all it shows: no script, nothing from elsewhere, which its content security policy also says.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--muted:#57606a;--line:#d0d7de;--soft:#f3f5f7;--accent:#1f5f99;
--warm:#b3402f;--good:#1a7f37;--warn:#8a5a00;--bad:#b42318}
@media (prefers-color-scheme:dark){:root{--paper:#101418;--ink:#e6e9ec;--muted:#a3adb8;--line:#343b43;--soft:#1a2027;
--accent:#7db8ee;--warm:#f0907f;--good:#56c271;--warn:#e0b252;--bad:#ff8b80}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;
color:var(--ink);background:var(--paper)}
h1{margin:.3em 0;overflow-wrap:anywhere}h2{margin:2em 0 .4em;border-bottom:1px solid var(--line)}h3{margin:1.4em 0 .3em}
p,li{max-width:46rem;overflow-wrap:anywhere}.muted,figcaption{color:var(--muted);font-size:.9em}
code,pre{font:.85em ui-monospace,monospace;overflow-wrap:anywhere}pre{white-space:pre-wrap}
.scroll{overflow-x:auto;max-width:100%}p.above{margin:1em 0 0}
table{border-collapse:collapse;margin:.3em 0 .8em;font-variant-numeric:tabular-nums}
th,td{padding:.25em .7em;border-bottom:1px solid var(--line);text-align:right;
vertical-align:top}th{font-weight:600}th:first-child,td:first-child{text-align:left}
.words2 :nth-child(2),.words :is(td,th){text-align:left}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.7rem;margin:1rem 0}
.card{background:var(--soft);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;min-width:0;
overflow-wrap:anywhere}
.card strong{display:block;font-size:1.3em}.card img{width:100%;max-width:10rem;
image-rendering:pixelated;border:1px solid var(--line);background:#fff}
.wide{grid-template-columns:repeat(auto-fill,minmax(17rem,1fr))}
.verdict{border-left:.4rem solid var(--muted);padding:.2rem 1rem;background:var(--soft)}.verdict p{font-size:1.15em}
.good{border-color:var(--good)}.warn{border-color:var(--warn)}.bad{border-color:var(--bad)}
ul.remarks{list-style:none;padding:0}.remarks li::before{content:attr(data-mark) " ";font-weight:700}
.remarks .good::before{color:var(--good)}.remarks .warn::before{color:var(--warn)}
.remarks .bad::before{color:var(--bad)}
.why{display:grid;grid-template-columns:auto 4rem auto;gap:0 .4rem;align-items:center;text-align:left;min-width:11rem}
.why .bar{width:4rem}.against i{background:var(--accent)!important}.for i{background:var(--warm)!important}
mark{color:inherit;border-radius:2px}blockquote{margin:.3em 0}
.bar{display:block;width:7rem}.bar i{display:block;height:.8em;min-width:2px;background:var(--accent);border-radius:2px}
figure{margin:1em 0;max-width:34rem}.pair{display:flex;flex-wrap:wrap;gap:1rem}.pair figure{flex:1 1 20rem}
svg{width:100%;height:auto}details{margin:.6em 0}summary{cursor:pointer}
@media print{:root{--paper:#fff;--ink:#000;--muted:#444;--line:#bbb;--soft:#fff;--accent:#1f5f99;--warm:#b3402f}
body{max-width:none;font-size:11pt}figure,.card,tr,.verdict{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}}
"""
_MARKS = {"good": "✓", "warn": "!", "bad": "✗"}


class Safe(str):
    """HTML that is written as it is."""

    __slots__ = ()


def escape(text: object) -> str:
    """Text as HTML.

    >>> escape("<b>"), escape(Safe("<b>"))
    ('&lt;b&gt;', '<b>')
    """
    return text if isinstance(text, Safe) else html.escape(str(text))


def document(title: str, body: str) -> bytes:
    """A whole page.

    Args:
        title: of the window, as text.
        body: HTML.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    ).encode()


def section(title: str, *contents: str) -> str:
    """A part of a page; nothing where it has no content."""
    content = "".join(contents)
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def paragraph(text: str) -> str:
    """A paragraph; "" for an empty text."""
    return f"<p>{escape(text)}</p>" if text else ""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "", aligned: str = "") -> str:
    """A table whose first cells name its rows; nothing where it has no rows.

    Args:
        head: names of the columns.
        rows: cells: text, or HTML that is `Safe`.
        caption: a line above it.
        aligned: which columns but the first are aligned as words, not as numbers: "words2" the second, "words" all.
    """
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    above = f'<p class="muted above">{escape(caption)}</p>' if caption else ""
    kind = f' class="{aligned}"' if aligned else ""
    name = escape(caption or ", ".join(filter(None, head)))
    return (
        f'{above}<div class="scroll" role="region" tabindex="0" aria-label="{name}">'
        f"<table{kind}><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def cards(contents: Iterable[str], *, wide: bool = False) -> str:
    """Boxes in as many columns as fit."""
    inner = "".join(f'<div class="card">{content}</div>' for content in contents)
    return f'<div class="cards{" wide" if wide else ""}">{inner}</div>' if inner else ""


def fact(name: str, value: str, note: str = "") -> str:
    """The content of a card with one figure."""
    return f'{escape(name)}<strong>{escape(value)}</strong><span class="muted">{escape(note)}</span>'


def remarks(found: Iterable[tuple[str, str]]) -> str:
    """A list of sentences, each "good", "warn" or "bad"."""
    lines = "".join(f'<li class="{kind}" data-mark="{_MARKS[kind]}">{escape(text)}</li>' for kind, text in found)
    return f'<ul class="remarks">{lines}</ul>' if lines else ""


def bar(share: float) -> Safe:
    """A bar as long as a share of its cell."""
    return Safe(f'<span class="bar"><i style="width:{max(0.0, min(share, 1.0)) * 100:.1f}%"></i></span>')


def shaded(text: str, share: float) -> Safe:
    """Text on a ground that is the darker the larger the share; readable in both themes."""
    if not share:
        return Safe(f'<span class="muted">{escape(text)}</span>')
    ground = f"background:color-mix(in srgb,var(--accent) {10 + 30 * share:.0f}%,transparent)"
    return Safe(f'<span style="{ground};display:block;padding:0 .3em">{escape(text)}</span>')


def details(title: str, content: str) -> str:
    """Content that is hidden until it is asked for; "" if there is none."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""
