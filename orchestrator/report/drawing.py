"""How the report's figures look: matplotlib to SVG, colours told apart by the colour-blind, labels beside the lines.

Inline figures take their colours from the page's style sheet, so that they follow light and dark; saved ones carry
their own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from orchestrator.runs.study import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, LINE = "#1b2027", "#5d6875", "#dde2e8"
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
SOLID = 5  # arms drawn with solid lines; colour alone does not tell more apart
CROWD = 5  # from so many arms on, single seeds are left out and bands are fainter
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDE = 13.6  # inches of a figure over the page's whole width, so that its text is as large as the others'
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.9,
    "svg.fonttype": "none",
    "svg.hashsalt": "orchestrator",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """One figure: where it goes, what it shows."""

    name: str  # file-name safe
    title: str
    caption: str
    svg: str  # a whole SVG file, its background transparent
    wide: bool = False

    def inline(self) -> str:
        """The figure as an ``<svg>`` element for a page with this report's style sheet."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
        svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
        svg = re.sub(r'\bid="', f'id="{self.name}-', svg)
        svg = svg.replace("url(#", f"url(#{self.name}-").replace('href="#', f'href="#{self.name}-')
        for index, colour in enumerate(PALETTE):
            svg = svg.replace(colour, f"var(--arm-{index})")
        svg = svg.replace(INK, "currentColor").replace(MUTED, "var(--muted)").replace(LINE, "var(--line)")
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
        return svg.replace("<svg", f'<svg role="img" aria-label="{escape(self.title)}"', 1)

    def standalone(self) -> str:
        """The figure as the text of an SVG file, on white."""
        return re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', self.svg, count=1)


def one_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 3.7), layout="constrained")
    return figure, figure.subplots()


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, float]], colours: Mapping[str, int]) -> None:
    """Write each arm's name beside the end of its line, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = 0.062 * (high - low)
    order = sorted(ends, key=lambda arm: ends[arm][1])
    heights: list[float] = []
    for arm in order:
        heights.append(max(ends[arm][1], heights[-1] + gap if heights else low))
    overflow = max(0.0, (heights[-1] if heights else low) - high)
    heights = [height - overflow for height in heights]
    for index in range(len(heights) - 2, -1, -1):  # pushed down together, kept apart
        heights[index] = min(heights[index], heights[index + 1] - gap) if overflow else heights[index]
    for arm, height in zip(order, heights, strict=True):
        axes.annotate(
            arm,
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=PALETTE[colours[arm] % len(PALETTE)],
            fontweight="bold",
            annotation_clip=False,
        )


def svg_text(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue().replace("'DejaVu Sans'", "system-ui, 'Segoe UI', 'Liberation Sans', 'DejaVu Sans'")
