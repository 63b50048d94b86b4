"""Draws the deployments and failures of the last day as SVG, with the same in words and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from kapso_sync.model.status import ActivityHour
from kapso_sync.plurals import counted

HOURS = 24

_BAR = 10
_STEP = 14
_HEIGHT = 72
_LEAST = 3
"""Widths and heights in the drawing's own units; a bar is never lower than the least, so that one failure can be seen."""


def activity_section(activity: Sequence[ActivityHour], now: datetime) -> str:
    """Return the section, or nothing if nothing was deployed and nothing failed."""
    hours = last_day(activity, now)
    deployed, failed = (sum(getattr(hour, name) for hour in hours) for name in ("deployed", "failed"))
    if not deployed and not failed:
        return ""
    said = f"{counted(deployed, 'deployment')} went live and {counted(failed, 'failure')} in the last {HOURS} hours"
    return f"""<section id="activity" aria-labelledby="last-day"><h2 id="last-day">Last {HOURS} hours</h2>
<figure class="card chart">
<figcaption><span class="key deployed"><span aria-hidden="true">▮</span> {counted(deployed, "deployment")}</span>
<span class="key failed"><span aria-hidden="true">▮</span> {counted(failed, "failure")}</span></figcaption>
{_drawing(hours, said)}
<p class="scale" aria-hidden="true"><span>{HOURS} h ago</span><span>{HOURS // 2} h ago</span><span>now</span></p>
{_table(hours)}
</figure></section>"""


def last_day(activity: Sequence[ActivityHour], now: datetime) -> list[ActivityHour]:
    """Return each hour of the last day, the present one last."""
    start = now.replace(minute=0, second=0, microsecond=0)
    known = {hour.start: hour for hour in activity}
    starts = [start - timedelta(hours=back) for back in reversed(range(HOURS))]
    return [known.get(each, ActivityHour(each)) for each in starts]


def _drawing(hours: Sequence[ActivityHour], said: str) -> str:
    """Return the bars: deployments stand on the line, failures hang below it, in one scale."""
    above, below = max(hour.deployed for hour in hours), max(hour.failed for hour in hours)
    unit = _HEIGHT / (above + below)
    line = max(above * unit, _LEAST if above else 0)
    height = line + max(below * unit, _LEAST if below else 0)
    bars = "".join(
        f"<g><title>{_hour(hour)}: {counted(hour.deployed, 'deployment')}, {counted(hour.failed, 'failure')}</title>"
        f"{_bar('deployed', index, line, -hour.deployed * unit)}{_bar('failed', index, line, hour.failed * unit)}</g>"
        for index, hour in enumerate(hours)
        if hour.deployed or hour.failed
    )
    width = HOURS * _STEP
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 0 {width} {height:g}" preserveAspectRatio="none">{bars}'
        f'<line class="axis" x1="0" x2="{width}" y1="{line:g}" y2="{line:g}"/></svg>'
    )


def _bar(kind: str, index: int, line: float, length: float) -> str:
    """Return a bar that begins at the line; a negative length goes up."""
    if not length:
        return ""
    height = max(abs(length), _LEAST)
    top = line - height if length < 0 else line
    return f'<rect class="{kind}" x="{index * _STEP + 2}" y="{top:g}" width="{_BAR}" height="{height:g}"/>'


def _table(hours: Sequence[ActivityHour]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_hour(hour)}</th><td>{hour.deployed}</td><td>{hour.failed}</td></tr>'
        for hour in reversed(hours)
        if hour.deployed or hour.failed
    )
    return (
        '<details id="activity-table"><summary>The same as a table</summary><table><thead><tr><th scope="col">Hour (UTC)</th>'
        f'<th scope="col">Deployments</th><th scope="col">Failures</th></tr></thead><tbody>{rows}</tbody></table></details>'
    )


def _hour(hour: ActivityHour) -> str:
    return f"{hour.start:%H:%M}"
