"""Check the built documentation site: links and anchors lead somewhere, and no page loads anything from outside.

``python -m tests.docs.site FOLDER`` prints what is wrong, and exits with 1 if anything is.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLLOWED = {"a": ("href",), "area": ("href",)}
"""Where a reader may go: also to other sites."""
LOADED = ("src", "href", "srcset", "poster", "data", "xlink:href")
"""What every other element has a browser load."""
BY_SCRIPT = {"mermaid": "a mermaid diagram, whose script the theme loads from a CDN"}
"""Classes that make the theme's script load something."""


@dataclass
class Page:
    """What one page has and wants: its anchors, where it leads, and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.page.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.page.scripts += [reason for name, reason in BY_SCRIPT.items() if name in values.get("class", "").split()]
        into = self.page.links if tag in FOLLOWED else self.page.assets
        for name in FOLLOWED.get(tag, LOADED):
            if name == "srcset":
                into += [part.split()[0] for part in values.get(name, "").split(",") if part.strip()]
            elif name in values:
                into.append(values[name])
        self.page.assets += re.findall(r"url\(['\"]?([^'\")]+)", values.get("style", ""))


def read(text: str) -> Page:
    """Read one page."""
    reader = _Reader()
    reader.feed(text)
    return reader.page


def problems(site: Path) -> Iterator[str]:
    """Yield one line for each thing that is wrong with a built site."""
    pages = {path.relative_to(site).as_posix(): read(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no page"
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    for name, page in pages.items():
        yield from (f"{name}: loads {asset}" for asset in page.assets if _is_outside(asset))
        yield from (f"{name}: {reason}" for reason in page.scripts)
        for target in [*page.links, *page.assets]:
            if not _is_outside(target) and urlsplit(target).scheme not in ("mailto", "data"):
                yield from (f"{name}: {target}: {fault}" for fault in _faults(target, name, pages, files))
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        urls = re.findall(r"(?:url\(|@import\s+)['\"]?([^'\");]+)", text)
        yield from (f"{sheet.relative_to(site)}: loads {url}" for url in urls if _is_outside(url))


def _is_outside(target: str) -> bool:
    return target.startswith(("http://", "https://", "//"))


def _faults(target: str, page: str, pages: dict[str, Page], files: set[str]) -> Iterator[str]:
    """Follow one link as a web server would."""
    path, anchor = unquote(urlsplit(target).path), unquote(urlsplit(target).fragment)
    found = posixpath.normpath(posixpath.join("/", posixpath.dirname(page), path)).strip("/") if path else page
    if found not in files and not posixpath.splitext(path)[1]:
        found = posixpath.join(found, "index.html") if found else "index.html"
    if found not in files:
        yield "there is no such page"
    elif anchor and found in pages and anchor not in pages[found].anchors:
        yield "there is no such anchor"


def main(site: Path) -> int:
    """Print what is wrong with a site; return 1 if anything is."""
    found = list(problems(site))
    pages = len(list(site.rglob("*.html")))
    print("\n".join(found) or f"{pages} pages: every link and anchor leads somewhere, and nothing is loaded from outside")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
