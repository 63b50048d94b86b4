"""Pack the deployment files of a release, with the image named by its digest: a tag can be moved, a digest cannot.

python deploy/release/manifests.py ghcr.io/acme/kapso-sync@sha256:… --into dist
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

DEPLOY = Path(__file__).parents[1]
NAME = "kapso-sync-deploy.tar.gz"
_IMAGE = re.compile(r"^(\s*(?:- )?image: )kapso-sync:\S+$", re.MULTILINE)
_DIGEST = re.compile(r"[\w./-]+@sha256:[0-9a-f]{64}")


def pack(image: str, into: Path) -> tuple[Path, int]:
    """Write the archive into a folder; return its path, and in how many places the image was named."""
    into.mkdir(parents=True, exist_ok=True)
    named = 0
    with tarfile.open(into / NAME, "w:gz") as archive:
        for path in sorted(DEPLOY.rglob("*")):
            inside = path.relative_to(DEPLOY)
            if not path.is_file() or inside.parts[0] == "release" or "__pycache__" in inside.parts:
                continue
            content = path.read_bytes()
            if path.suffix == ".yaml":
                text, count = _IMAGE.subn(rf"\g<1>{image}", content.decode("utf-8"))
                named += count
                content = text.encode("utf-8")
            member = tarfile.TarInfo(f"deploy/{inside.as_posix()}")
            member.size, member.mode = len(content), path.stat().st_mode & 0o777
            archive.addfile(member, io.BytesIO(content))
    return into / NAME, named


def main(arguments: Sequence[str]) -> int:
    """Pack the files, or return 1 where the image has no digest or no file names an image."""
    parser = argparse.ArgumentParser(description="Pack the deployment files, with the image by its digest.")
    parser.add_argument("image", help="name@sha256:…")
    parser.add_argument("--into", type=Path, default=Path("dist"))
    options = parser.parse_args(arguments)
    if not _DIGEST.fullmatch(options.image):
        print(f"{options.image} is not a name and a digest", file=sys.stderr)
        return 1
    path, named = pack(options.image, options.into)
    if not named:
        print("no file of the deployment names an image", file=sys.stderr)
        return 1
    print(f"{path}: {named} places name {options.image}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
