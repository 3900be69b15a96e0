"""Turn a matplotlib figure into SVG that lies inside a page: no outside references, ink in the page's own color."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#0b0c0d"  # written as currentColor, so that it is dark on a light page and light on a dark one
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "neuroint",
    "text.parse_math": False,  # a $ in an arm's name is a $
}
_SCREEN_PIXELS = 120  # per inch: 9-point type is then as large as the text around it
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


@dataclass(frozen=True)
class Panel:
    """A drawn figure: its SVG, and what it shows in words."""

    svg: str
    alt: str


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the report's style; settings of the process are put back."""
    with mpl.rc_context(_STYLE):
        yield


def panel(figure: Figure, name: str, alt: str) -> Panel:
    """Write a figure as SVG whose identifiers begin with a name that no other figure of the page has."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=130, metadata=_NO_METADATA)
    text = buffer.getvalue()
    opening = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', text)
    if opening is None:
        raise ValueError(f"matplotlib wrote no SVG for figure '{name}'; expected an <svg> element with a viewBox")
    body = re.sub(r"<metadata>.*?</metadata>", "", text[opening.end() :], flags=re.DOTALL)
    body = body.replace("xlink:href", "href").replace(INK, "currentColor")
    body = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    size = f'viewBox="{opening.group(1)}" style="max-width:{figure.get_figwidth() * _SCREEN_PIXELS:.0f}px"'
    return Panel(f'<svg role="img" aria-label="{escape(alt)}" {size}>{body}', alt)
