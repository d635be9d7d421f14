"""The documents of this repository, and the blocks of code in them."""

import re
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).parent.parent
_FOLDERS: Final = ("respan_async", "tests", "benchmarks")
_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_LINK: Final = re.compile(r"\]\(\s*([^)]+?)\s*\)")


@attrs.frozen
class Block:
    """A block of code in a document.

    Attributes:
        document: From the root of the repository.
        number: Which of the document's blocks it is, from 0.
        language: As it is named.
        code: What is in it.
    """

    document: str
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document}:{self.number}"


def documents() -> list[Path]:
    """Return every document that git knows of, but for what a quick run of the benchmarks writes."""
    found = [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md")]
    for folder in _FOLDERS:
        found += (ROOT / folder).rglob("*.md")
    return sorted(path for path in found if path.parent != ROOT / "benchmarks" / "quick")


def readmes() -> list[Path]:
    """Return the documents of folders, whose code is run."""
    return [path for path in documents() if path.name == "README.md"]


def blocks(language: str | None = None) -> list[Block]:
    """Return the blocks of code of every README, of one language or of all."""
    return [
        Block(path.relative_to(ROOT).as_posix(), number, name, code)
        for path in readmes()
        for number, (name, code) in enumerate(_BLOCK.findall(path.read_text()))
        if language in (None, name)
    ]


def anchors(path: Path) -> set[str]:
    """Return what links into a document may name: its headings, as GitHub writes them."""
    headings = _HEADING.findall(_BLOCK.sub("", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> list[str]:
    """Return the targets of a document's links, without those to other sites."""
    targets: list[str] = _LINK.findall(_BLOCK.sub("", path.read_text()))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def section(path: Path, heading: str) -> str:
    """Return the text under a heading of the second level."""
    return path.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, without their heads."""
    lines = re.findall(r"^\|(.*)\|$", re.sub(r"^\|.*\|\n\|[-|]+\|$", "", text, flags=re.MULTILINE), re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
