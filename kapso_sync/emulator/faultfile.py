"""The file that ``--faults`` names: fault rules in YAML, with the line and column of every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from kapso_sync.emulator.errors import FaultsInvalid
from kapso_sync.emulator.faults import Rule, name_place, read_rules


def read_fault_file(path: Path) -> tuple[Rule, ...]:
    """Return the rules in the file; raises FaultsInvalid, naming ``file:line:column``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FaultsInvalid(f"cannot read {path}: {error}", hint="--faults names a YAML file") from error
    try:
        document = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise FaultsInvalid(f"{where}: {error.problem or 'not YAML'}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise FaultsInvalid(f"{path}: not YAML that can be read: {error}") from error

    def place(index: int | None, key: str | None) -> str:
        return f"{path}{_position(document, index, key)}: {name_place(index, key)}"

    return read_rules(document, place)


def _position(document: object, index: int | None, key: str | None) -> str:
    if index is None:
        return ""
    rules = cast("CommentedMap", document)["faults"]
    rule = rules[index]
    if isinstance(rule, CommentedMap) and key in rule:
        line, column = rule.lc.key(key)
    else:
        line, column = rules.lc.item(index)
    return f":{line + 1}:{column + 1}"
