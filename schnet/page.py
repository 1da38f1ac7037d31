"""One HTML page on its own: no other file, no network; on a phone, on paper and in the dark."""

from __future__ import annotations

import base64
import html
import re

STYLE = """
:root{color-scheme:light dark;--text:#1a1a1a;--soft:#666;--line:#ddd;--strong:#333;
--back:#fff;--block:#f6f6f6;--banner:#fff4d6;--mark:#fff0b3;--link:#0b5ea8}
@media(prefers-color-scheme:dark){:root{--text:#ddd;--soft:#999;--line:#3a3a3a;--strong:#aaa;
--back:#161616;--block:#222;--banner:#3a2f12;--mark:#4d4213;--link:#7db8ef}
img{background:#fff;filter:brightness(.88)}}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;
color:var(--text);background:var(--back);overflow-wrap:break-word}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
section{margin-top:3rem}h1,h2{line-height:1.25}small,.soft{color:var(--soft);font-weight:normal}
iframe{width:100%;height:36rem;border:1px solid var(--line)}
.scroll{overflow-x:auto;max-width:100%}img{max-width:100%;height:auto}figure{margin:0}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
thead th{border:0;vertical-align:bottom;white-space:normal}
thead tr:last-child th,thead th.deep{border-bottom:2px solid var(--strong)}
th.span{text-align:center;border-bottom:1px solid var(--strong)}
td:first-child,.text{text-align:left}
td:first-child{position:sticky;left:0;background:var(--back);white-space:normal}
td.words{text-align:left;white-space:normal;min-width:7rem}
tr:target td,td:target{background:var(--mark)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dd{margin:0}
nav ul{padding:0;list-style:none;columns:16rem}nav h2{font-size:1rem;margin:1rem 0 .2rem}
.notes{color:var(--soft);font-size:12px;padding-left:1.2rem}.downloads{font-size:12px}
.banner{background:var(--banner);border-left:4px solid #e69f00;padding:.6rem 1rem}
details{font-size:12px}pre{background:var(--block);padding:.5rem;overflow-x:auto;font-size:11px}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th[aria-sort=ascending] button::after{content:" ▲"}
th[aria-sort=descending] button::after{content:" ▼"}
#runs td:first-child{min-width:12rem;overflow-wrap:anywhere}
@media(max-width:40rem){td:first-child{max-width:9rem}dl{display:block}dd{margin-bottom:.4rem}}
@media print{nav,.downloads,details{display:none}}
"""
#: a click on a head sorts by its column: by data-value where cells have one, empty ones last
SORT = """
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th").forEach((head, column, heads) => head.onclick = () => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    heads.forEach(other => other.ariaSort = null);
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (one, other) => {
      const [x, y] = [value(one), value(other)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (isNaN(x - y) ? x.localeCompare(y) : x - y);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  });
"""
# a power as in Å^2, an index as in ε_HOMO, a minus before a number
_POWER = re.compile(r"\^(-?\d+)")
_INDEX = re.compile(r"(?<![\w./])([^\W\d_])_([A-Za-z0-9]+)(?!\w|[./]\w)")
_MINUS = re.compile(r"(?<![\w.^\-])-(?=\d)")


def rich(text: str) -> str:
    """Text as HTML: powers as in Å^2 raised, indices as in ε_HOMO lowered, a proper minus."""
    text = _MINUS.sub("−", html.escape(text))
    text = _POWER.sub(lambda match: f"<sup>{match[1].replace('-', '−')}</sup>", text)
    return _INDEX.sub(r"\1<sub>\2</sub>", text)


def download(label: str, name: str, content: str | bytes, kind: str) -> str:
    """A link that holds the file itself.

    Args:
        label: of the link.
        name: of the file.
        content: of the file, text as UTF-8.
        kind: media type, such as text/csv.
    """
    data = content.encode() if isinstance(content, str) else content
    code = base64.b64encode(data).decode()
    return f"<a download='{html.escape(name)}' href='data:{kind};base64,{code}'>{label}</a>"


def page(title: str, body: str) -> str:
    """A whole HTML document.

    Args:
        title: as text.
        body: as HTML.
    """
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{body}<script>{SORT}</script></body></html>\n"
    )
