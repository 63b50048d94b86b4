"""Find the configuration file that is nearest to a file: in its folder, or in one above it, up to the source's root."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from kapso_sync.dataclass import dataclass
from kapso_sync.model.source import Above, SourceFile


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The files of a functions folder and the configuration files above it.

    All paths are relative to the functions folder; those outside of it begin with ``../``.
    """

    files: Mapping[str, SourceFile]
    above: Above = field(default_factory=Above)

    def get(self, path: str) -> SourceFile | None:
        """Return a file of the functions folder, or a configuration file above it, or None."""
        return self.files.get(path) or self.above.files.get(path)

    def nearest(self, folder: str, names: tuple[str, ...]) -> str | None:
        """Return the first of these names that is in a folder, or in the nearest folder above it, or None."""
        for level in self._levels(folder):
            for name in names:
                path = f"{level}/{name}" if level else name
                if self.get(path) is not None:
                    return path
        return None

    def _levels(self, folder: str) -> Iterator[str]:
        while folder:
            yield folder
            folder = folder.rpartition("/")[0]
        yield ""
        for height in range(1, len(_parts(self.above.home)) + 1):
            yield "/".join([".."] * height)

    def normal(self, path: str) -> str:
        """Return a path without ``.``; ``..`` remains only at the beginning, if the path leads out of the functions folder.

        A path that leads out of the folder and into it again, as ``../functions/a.ts``, is one inside.
        """
        home = _parts(self.above.home)
        parts = list(home)
        for part in path.split("/"):
            if part == ".." and parts and parts[-1] != "..":
                parts.pop()
            elif part not in (".", ""):
                parts.append(part)
        shared = 0
        while shared < min(len(home), len(parts)) and home[shared] == parts[shared]:
            shared += 1
        return "/".join([".."] * (len(home) - shared) + parts[shared:])


def _parts(path: str) -> list[str]:
    return path.split("/") if path else []
