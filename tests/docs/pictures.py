"""Draw the pictures of docs/images from text: boxes at places, and arrows between them. ``make pages`` writes them.

A line is ``title TEXT``, ``size WIDTH HEIGHT``, ``box NAME X Y WIDTH HEIGHT TEXT | TEXT …``, whose first text is the heading,
``group …``, a box that others stand in, or ``arrow FROM TO SHIFT TEXT``, straight between two boxes and moved aside by SHIFT.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LINE = 17
HEAD = 9
STYLE = """\
text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#24292f;text-anchor:middle}
.h{font-weight:600}.l{font-size:12px;fill:#57606a}
.bg{fill:#fff}.b{fill:#f6f8fa;stroke:#8c959f}.g{fill:none;stroke:#8c959f;stroke-dasharray:4 3}
.a{stroke:#0a7d74;stroke-width:1.5}.t{fill:#0a7d74}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}.l{fill:#9da7b3}.bg{fill:#0d1117}.b{fill:#161b22;stroke:#484f58}.g{stroke:#484f58}
.a{stroke:#3fb6aa}.t{fill:#3fb6aa}}"""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a heading and lines of text."""

    x: float
    y: float
    width: float
    height: float
    texts: tuple[str, ...]
    is_group: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    def svg(self) -> str:
        across, middle = self.centre
        top = self.y + 18 if self.is_group else middle - (len(self.texts) - 1) * LINE / 2 + 4
        place = f'x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}"'
        shape = f'<rect class="{"g" if self.is_group else "b"}" {place} rx="6"/>'
        lines = [
            f'<text class="{"l" if number else "h"}" x="{across:g}" y="{top + number * LINE:g}">{escape(text)}</text>'
            for number, text in enumerate(self.texts)
        ]
        return "\n".join([shape, *lines])


def arrow(start: Box, end: Box, shift: float, label: str) -> str:
    """Return a straight arrow, level between boxes beside each other, else upright, and its label."""
    (x1, y1), (x2, y2) = start.centre, end.centre
    if start.y < end.y + end.height and end.y < start.y + start.height:
        right = x2 > x1
        x1, x2 = (start.x + start.width, end.x) if right else (start.x, end.x + end.width)
        y1 = y2 = (max(start.y, end.y) + min(start.y + start.height, end.y + end.height)) / 2 + shift
        tip = x2 - HEAD if right else x2 + HEAD
        head = f"{x2:g},{y2:g} {tip:g},{y2 - HEAD / 2:g} {tip:g},{y2 + HEAD / 2:g}"
        line, place = f'x1="{x1:g}" y1="{y1:g}" x2="{tip:g}" y2="{y2:g}"', ((x1 + x2) / 2, y1 - 7)
    else:
        down = y2 > y1
        y1, y2 = (start.y + start.height, end.y) if down else (start.y, end.y + end.height)
        left, right_edge = max(start.x, end.x), min(start.x + start.width, end.x + end.width)
        x1 = x2 = (left + right_edge) / 2 + shift
        tip = y2 - HEAD if down else y2 + HEAD
        head = f"{x2:g},{y2:g} {x2 - HEAD / 2:g},{tip:g} {x2 + HEAD / 2:g},{tip:g}"
        line, place = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{tip:g}"', (x1, (y1 + y2) / 2 + 4)
    text = f'\n<text class="l" x="{place[0]:g}" y="{place[1]:g}">{escape(label)}</text>' if label else ""
    return f'<line class="a" {line}/><polygon class="t" points="{head}"/>{text}'


def draw(text: str) -> str:
    """Return the SVG of a picture's text."""
    title, width, height = "", "0", "0"
    boxes: dict[str, Box] = {}
    parts: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        kind, _, rest = line.partition(" ")
        match kind:
            case "title":
                title = rest
            case "size":
                width, height = rest.split()
            case "box" | "group":
                name, *numbers, words = rest.split(maxsplit=5)
                x, y, across, down = map(float, numbers)
                boxes[name] = Box(x, y, across, down, tuple(each.strip() for each in words.split("|")), kind == "group")
                parts.append(boxes[name].svg())
            case "arrow":
                start, end, shift, *label = rest.split(maxsplit=3)
                parts.append(arrow(boxes[start], boxes[end], float(shift), " ".join(label)))
            case _:
                raise ValueError(line)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="bg" width="{width}" height="{height}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )


def write_pictures(images: Path) -> None:
    """Draw every picture of a folder that has a text."""
    for source in sorted(images.glob("*.txt")):
        source.with_suffix(".svg").write_text(draw(source.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write_pictures(IMAGES)
