"""A table as LaTeX."""

from __future__ import annotations

import re
import textwrap

from schnet.tables.layout import WORDS, Head, Table, head_lines

#: characters that LaTeX reads as commands, or that its usual fonts lack
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "[": "{[}",
    "]": "{]}",
    "Å": r"\AA{}",
    "±": r"$\pm$",
    "–": "--",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "‖": r"$\|$",
    "½": r"$\frac{1}{2}$",
    "→": r"$\rightarrow$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\epsilon$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "Ω": r"$\Omega$",
}
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
#: a power as in Å^2 or Å², an index as in ε_HOMO or β₂, a minus before a number, or any character
_TOKEN = re.compile(
    r"\^(?P<power>-?\d+)|(?P<raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)|(?P<lowered>[₀₁₂₃₄₅₆₇₈₉]+)"
    r"|(?<![\w./])(?P<base>[^\W\d_])_(?P<index>[A-Za-z0-9]+)(?!\w|[./]\w)"
    r"|(?<![\w.\-])(?P<minus>-)(?=\d)|(?P<character>.)",
    re.DOTALL,
)


def _latex_token(match: re.Match) -> str:
    if match["index"]:
        return rf"{LATEX.get(match['base'], match['base'])}$_{{\mathrm{{{match['index']}}}}}$"
    if match["lowered"]:
        return f"$_{{{match['lowered'].translate(SUBSCRIPTS)}}}$"
    if match["minus"]:
        return "$-$"
    power = match["power"] or (match["raised"] or "").translate(SUPERSCRIPTS)
    if power:
        return f"$^{{{power}}}$"
    return LATEX.get(match["character"], match["character"])


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it stands; powers as in Å^2 are raised, indices lowered."""
    return _TOKEN.sub(_latex_token, text)


def _latex_cell(text: str, align: str, width: int = WORDS) -> str:
    """Text in as many lines as it needs to be no longer than ``width`` characters."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    if len(lines) < 2:
        return latex_text(text)
    inner = r" \\ ".join(latex_text(line) for line in lines)
    return rf"\begin{{tabular}}[b]{{@{{}}{align}@{{}}}}{inner}\end{{tabular}}"


def _latex_heads(heads: list[Head]) -> list[str]:
    """Lines of heads, a rule under each text that spans several columns."""
    levels = head_lines(heads)
    if not levels:
        return [" & ".join(_latex_cell(h.shows, "l") for h in heads) + r" \\"]
    lines = []
    for depth, spans in enumerate(levels):
        texts, rules, column = [], [], 1
        for text, count in spans:
            last = depth == len(levels) - 1
            if last and not heads[column - 1].key:
                texts.append(_latex_cell(heads[column - 1].shows, "l"))
            elif count > 1 or text:
                cell = _latex_cell(text, "c", max(10, 9 * count))
                texts.append(rf"\multicolumn{{{count}}}{{{'r' if last else 'c'}}}{{{cell}}}")
            else:
                texts.append("")
            if text and not last and count > 1:
                rules.append(rf"\cmidrule(lr){{{column}-{column + count - 1}}}")
            column += count
        lines.append(" & ".join(texts) + r" \\")
        if rules:
            lines.append("".join(rules))
    return lines


def latex(table: Table) -> str:
    """The table as a float for \\input, as wide as the page at most, with its notes below."""
    places = table.shown()
    heads = [table.heads[k] for k in places]
    aligns = ["r" if head.key else "l" for head in heads]

    def line(row: list[str]) -> str:
        texts = (_latex_cell(row[k], align) for k, align in zip(places, aligns, strict=True))
        return " & ".join(texts) + r" \\"

    title = latex_text(f"{table.title} {table.at_scale}".rstrip())
    parts = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{title}. {latex_text(table.caption)}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}\medskip",
        # graphicx calls the width of the table \width
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{"
        rf"\begin{{tabular}}{{{''.join(aligns)}}}",
        r"\toprule",
        *_latex_heads(heads),
        r"\midrule",
        *(line(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\medskip\raggedright\scriptsize",
        "\\par\n".join(latex_text(note) for note in table.notes) + r"\par",
        r"\end{table*}",
    ]
    return "\n".join(parts) + "\n"
