"""The reference of docs/ as the code would write it. ``make pages`` writes it into the pages."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import click
from prometheus_client.metrics import MetricWrapperBase

from kapso_sync.cli.app import SECTIONS, app
from kapso_sync.cli.context import _FLAGS
from kapso_sync.clock import SystemClock
from kapso_sync.manifest import json_schema
from kapso_sync.model import events
from kapso_sync.settings import SETTINGS, variable
from kapso_sync.status.tracker import StatusTracker
from kapso_sync.telemetry.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"


def event_rows() -> Iterator[str]:
    """A row of docs/logs.md for each event, by name."""
    classes = [event for event in vars(events).values() if inspect.isclass(event) and issubclass(event, events.Event)]
    for event in sorted(classes, key=lambda event: str(getattr(event, "name", ""))):
        if isinstance(getattr(event, "name", None), str):
            fields = " ".join(map(_field, events.declared_fields(event)))
            meaning = " ".join(str(inspect.getdoc(event)).split()).replace("``", "`")
            yield f"| `{event.name}` | {event.level} | {fields} | {meaning} |"


def _field(field: dataclasses.Field[object]) -> str:
    return f"`{field.metadata.get('key', field.name)}`" + ("?" if field.default is None else "")


def setting_rows() -> Iterator[str]:
    """A row of docs/settings.md for each setting, in the order of the code."""
    for name, setting in SETTINGS.items():
        flag = f"`{_FLAGS[name][0].partition('/')[0]}`" if name in _FLAGS else "`SOURCE`" if name == "source" else ""
        yield f"| `{variable(name)}` | {flag} | {_default(name, setting.default)} | {setting.description} |"


def manifest_rows() -> Iterator[str]:
    """A row of docs/manifest.md for each key of the manifest, with the text that editors show."""
    schema: Any = json_schema()
    models = schema["$defs"]
    shared = models["EntryModel"]["properties"].keys() & models["DefaultsModel"]["properties"].keys()
    yield from _keys("", schema, ())
    yield from _keys("functions.SLUG.", models["EntryModel"], ())
    yield from _keys("functions.SLUG.secrets.NAME.", models["SecretModel"], ())
    yield from _keys("functions.SLUG.checks[].", models["CheckModel"], ())
    yield from _keys("functions.SLUG.checks[].sign.", models["SignModel"], ())
    yield from _keys("functions.SLUG.checks[].expect.", models["ExpectModel"], ())
    yield from _keys("functions.SLUG.watch.", models["WatchModel"], ())
    yield from _keys("defaults.", models["DefaultsModel"], shared)
    yield from _keys("defaults.rollout.", models["RolloutModel"], ())
    yield from _keys("environments.NAME.", models["EnvironmentModel"], ())


def _keys(place: str, model: Any, without: Collection[str]) -> Iterator[str]:
    for name, key in model["properties"].items():
        if name not in without:
            yield f"| `{place}{name}` | {_values(key)} | {key['description']} |"


def _values(key: Mapping[str, Any]) -> str:
    """What a key takes, in words: the alternatives of an enumeration, the bounds of a number."""
    if "enum" in key:
        return " or ".join(f"`{str(each).lower() if isinstance(each, bool) else each}`" for each in key["enum"])
    if "anyOf" in key:
        return " or ".join(map(_values, key["anyOf"]))
    if not {"type", "$ref"} & key.keys():
        return "any"
    low, high = key.get("minimum", key.get("exclusiveMinimum")), key.get("maximum")
    bounds = "" if low is None else f", {low} or more" if high is None else f" {low}" if low == high else f", {low} to {high}"
    words = {"string": "text", "boolean": "`true` or `false`", "integer": "number", "number": "number", "array": "list"}
    return words.get(key.get("type", "object"), "keys") + bounds


def _default(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.0%}`" if name == "rate_share" else f"`{value:g}s`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def metric_rows() -> Iterator[str]:
    """A row of docs/metrics.md for each metric of our own, by name."""
    metrics = Metrics("0", StatusTracker(SystemClock(), "0", "x").status)
    ours = [metric for metric in metrics._registry._collector_to_names if isinstance(metric, MetricWrapperBase)]
    for metric in sorted(ours, key=lambda each: each._name):
        name = f"{metric._name}_total" if metric._type == "counter" else metric._name
        labels = " ".join(f"`{label}`" for label in metric._labelnames)
        yield f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |"


COMMANDS_INTRO = """\
# Commands

Results go to standard output; logs and progress go to standard error. `--json` prints one JSON document and nothing else.
`kapso-sync help COMMAND` prints the same as below. [Exit codes](compatibility.md#exit-codes) say how a command ends.

SOURCE is a folder or a git repository: a path, `https://…`, `ssh://…`, `git@host:path` or `file://…`. Without it
a command means the current folder; `status`, `reconcile`, `suspend` and `resume` mean the only daemon that runs.

This page is made from the program by `make pages`, and a test compares the two.
"""


def commands_page() -> str:
    """Return docs/cli.md: every command by section, with its options and its example."""
    parts = [COMMANDS_INTRO]
    known = {name for names in SECTIONS.values() for name in names}
    for title, names in SECTIONS.items():
        others = [name for name in app.commands if name not in known] if title == "More" else []
        parts.append(f"## {title}\n")
        parts += ["\n".join(_command(name, app.commands[name])) for name in (*names, *others)]
    return "\n".join(parts)


def _command(name: str, command: click.Command) -> Iterator[str]:
    # The parent has the settings of all commands: click makes a command's option for help once, after the first context.
    context = click.Context(command, info_name=name, parent=click.Context(app, info_name="kapso-sync", **app.context_settings))
    yield from (f"### {name}", "", inspect.cleandoc(str(command.help)).replace("``", "`"), "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```text", usage, "```", "")
    flags = {"--env-file", *(flag.partition("/")[0] for flag, _ in _FLAGS.values())}
    options = [param for param in command.params if isinstance(param, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    own = [(option, text) for option, text in records if option.split()[0].rstrip(",") not in flags]
    if own:
        yield from ("| option | meaning |", "|---|---|")
        yield from (f"| `{re.sub(r'[][]', '', option).replace('|', ' or ')}` | {text} |" for option, text in own)
        yield ""
    if shared := [f"`{option.split()[0]}`" for option, _ in records if option.split()[0].rstrip(",") in flags]:
        yield from (f"[Settings](settings.md) that it takes as flags: {', '.join(shared)}.", "")
    yield from ("```console", f"$ {str(command.epilog).removeprefix('Example: ')}", "```", "")


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {
    "logs.md": event_rows,
    "settings.md": setting_rows,
    "manifest.md": manifest_rows,
    "metrics.md": metric_rows,
}
"""The rows of a page that start with a name in backticks are the code's."""


def write_pages(docs: Path) -> None:
    """Write everything that is made from code into the pages of a folder."""
    for name, rows in TABLES.items():
        text = (docs / name).read_text(encoding="utf-8")
        table = re.compile(r"(?:^\| `.*\n)+", flags=re.MULTILINE)
        made = "".join(f"{row}\n" for row in rows())
        (docs / name).write_text(table.sub(lambda _, made=made: made, text, count=1), encoding="utf-8")  # type: ignore[misc]
    (docs / "cli.md").write_text(commands_page(), encoding="utf-8")
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    (docs / "schemas" / "manifest-v1.json").write_text(f"{schema}\n", encoding="utf-8")


if __name__ == "__main__":
    write_pages(DOCS)
