"""`python pipeline.py history`: which version is in service since when, and every move that led there."""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from local.commands.model_options import add_options, registry_of
from lrm.registry.judgement import next_step

HELP = "who put which version in service, when and why"
DESCRIPTION = (
    "Which version is in service since when, which one waits for a decision, and every move, the newest first."
)
COLUMNS = ("when (UTC)", "what", "from -> to", "in service", "who", "why")


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("history", help=HELP, description=DESCRIPTION)
    add_options(parser)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Print the history."""
    from lrm.registry.run import show
    from lrm.serving.release import root_of, served_version

    held = show(registry_of(asked), asked.name)
    held["served"] = served_version(root_of(asked.state, held["name"]))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n".join(line[:width] for line in told(held, datetime.now(UTC))))
    return 0


def told(held: dict[str, Any], now: datetime) -> list[str]:
    """The history in lines.

    Args:
        held: what `lrm.registry.run.show` returns, and `served`: the version that servers are told to serve.
        now: UTC instant up to which the last champion is in service.
    """
    moves = held["moves"]
    begins = [datetime.fromisoformat(move["time"]) for move in moves]
    lasted = [_duration(end - begin) for begin, end in zip(begins, [*begins, now][1:], strict=True)]
    rows = [
        (
            f"{begin:%Y-%m-%d %H:%M}",
            move["action"],
            f"{move['previous'] or 'none'} -> {move['version']}",
            f"{duration} {'so far' if move is moves[-1] else ''}".rstrip(),
            move["actor"],
            " ".join([*([f"[{move['run_id']}]"] if move["run_id"] else []), move["reason"]]).rstrip(),
        )
        for move, begin, duration in zip(moves, begins, lasted, strict=True)
    ]
    return [*_headline(held), *_table([COLUMNS, *reversed(rows)])] if rows else _headline(held)


def _headline(held: dict[str, Any]) -> list[str]:
    moves, champion = held["moves"], held["champion"]
    if interrupted := held["interrupted"]:
        asked = f"{interrupted['previous'] or 'none'} -> {interrupted['version']}, by {interrupted['actor']}"
        lines = [
            f"{held['name']}: a {interrupted['action']} ({asked}) was interrupted; the next command or run ends it"
        ]
    elif not champion:
        lines = [f"{held['name']}: no version was ever promoted"]
    elif not moves or moves[-1]["version"] != champion:
        lines = [f"{held['name']}: version {champion} is the champion, by other means than this ledger's"]
    else:
        since = datetime.fromisoformat(moves[-1]["time"])
        lines = [f"{held['name']}: version {champion} is the champion since {since:%Y-%m-%d %H:%M} UTC"]
    if (served := held["served"]) == champion:
        lines += [f"servers are told to serve it: version {served}"] if champion else []
    else:
        lines.append(
            f"servers are told to serve version {served or '(none)'}, not the champion: `python pipeline.py status` "
            "says what to do"
        )
    waiting = [one for one in held["versions"] if one["version"] == held["challenger"] != champion]
    for one in waiting:
        lines.append(f"latest challenger: version {one['version']}, verdict {one.get('verdict', '?')}")
        lines += [step] if (step := next_step(held["name"], one["version"], one.get("verdict", ""))) else []
    return [*lines, ""]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _duration(span: timedelta) -> str:
    """In the largest unit of which there is at least one."""
    seconds = int(span.total_seconds())
    units = ((86_400, "day"), (3_600, "hour"), (60, "minute"))
    count, unit = next(((seconds // size, unit) for size, unit in units if seconds >= size), (seconds, "second"))
    return f"{count} {unit}{'' if count == 1 else 's'}"
