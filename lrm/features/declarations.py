"""The declared views as plain values, and the rules that they must keep.

`feast_repo.py` reads them from the feature repo; everything else in this room works from these records alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from lrm.errors import SchemaError
from lrm.schema import (
    AFTER_ACTION,
    CANDIDATE,
    CANDIDATES,
    CREATED_TIME,
    DERIVED,
    EVENT_TIME,
    EVENTS,
    HISTORY,
    ITEM_ID,
    QUERY,
    REQUESTS,
    Signal,
)

MAKER_OF_ROLE = {EVENTS: HISTORY, REQUESTS: QUERY, CANDIDATES: CANDIDATE}
"""The one token maker that may read a signal kept in a base table."""


class View(NamedTuple):
    """One feature view."""

    name: str
    role: str | None
    """`events`, `requests` or `candidates` where the source is that table; None where it is joined point in time."""
    keys: tuple[str, ...]
    ttl: timedelta | None
    """How long a value stays valid after its `event_time`; None: for ever."""
    path: Path
    timestamp: str
    created: str | None
    signals: tuple[Signal, ...]


class Declarations(NamedTuple):
    """What one feature repo declares."""

    views: tuple[View, ...]
    service: str
    service_version: str
    """sha256 over the definitions, without the place of the data."""
    left_out: tuple[str, ...]
    """Views that the repo defines and the service does not name: nobody reads them."""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Every signal, in declared order."""
        return tuple(signal for view in self.views for signal in view.signals)

    @property
    def joined(self) -> tuple[View, ...]:
        """The views that are joined point in time."""
        return tuple(view for view in self.views if view.role is None)

    def of_role(self, role: str) -> tuple[Signal, ...]:
        """The signals kept in one of the base tables."""
        return tuple(signal for view in self.views if view.role == role for signal in view.signals)


def check(views: Iterable[View]) -> None:
    """Hold the views against the rules.

    Raises:
        SchemaError: two signals share a name, or one has that of a derived signal; a role is unknown or taken twice; a
            signal is read by a maker that cannot see its table; a signal known only after the action sits outside the
            events.
    """
    views = tuple(views)
    by_name: dict[str, list[Signal]] = {}
    for signal in (signal for view in views for signal in view.signals):
        by_name.setdefault(signal.name.lower(), []).append(signal)
    for same in by_name.values():
        if len(same) > 1:
            names, owners = dict.fromkeys(repr(one.name) for one in same), dict.fromkeys(one.view for one in same)
            raise SchemaError(
                f"signal {' = '.join(names)} is declared {len(same)} times, in the views {', '.join(owners)}; signal "
                "names are unique across views, upper and lower case being the same: rename one in views.py"
            )
    for role, count in Counter(view.role for view in views if view.role is not None).items():
        if role not in MAKER_OF_ROLE:
            raise SchemaError(
                f"role {role!r} of a view is not one of {tuple(MAKER_OF_ROLE)}; mend its tags in views.py"
            )
        if count > 1:
            raise SchemaError(f"{count} views have the role {role!r}; one view may describe a base table")
    for view in views:
        for signal in view.signals:
            _check_signal(view, signal)


def _check_signal(view: View, signal: Signal) -> None:
    where = f"signal {signal.name!r} of view {view.name!r}"
    if signal.name in DERIVED:
        raise SchemaError(f"{where}: a signal of this name is computed from the events; rename yours in views.py")
    if view.role is not None and signal.makers != (MAKER_OF_ROLE[view.role],):
        raise SchemaError(
            f"{where}: a signal of the {view.role} table can be read by the {MAKER_OF_ROLE[view.role]} maker alone, "
            f"got {', '.join(signal.makers)}; mend its tags in views.py"
        )
    if signal.known == AFTER_ACTION and view.role != EVENTS:
        raise SchemaError(
            f"{where}: it is known only after the action, and only the events table says when that was; "
            "move it to the view whose role is 'events'"
        )
    if view.role is None and HISTORY in signal.makers and view.keys != (ITEM_ID,):
        raise SchemaError(
            f"{where}: the history maker reads views of the item alone, this one is keyed by {', '.join(view.keys)}; "
            "drop 'history' from its makers in views.py"
        )
    if view.role is None and (view.timestamp != EVENT_TIME or view.created not in (CREATED_TIME, None)):
        raise SchemaError(
            f"{where}: its source names the times {view.timestamp!r} and {view.created!r}; "
            f"use timestamp_field={EVENT_TIME!r} and created_timestamp_column={CREATED_TIME!r} in sources.py"
        )
