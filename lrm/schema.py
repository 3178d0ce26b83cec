"""Column names, signal kinds and units: one spelling for all rooms.

A *signal* is declared once, as one Feast `Field` in the feature repo whose tags come from `dense`, `sparse`, `bag`,
`sequence`, `embedding` or `label` below. `retrieve_features` reads those tags into `Signal` records, and writes them as
`signals.json` beside the examples; every later room reads that file and nothing else about signals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ctypes import c_float
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lrm.errors import SchemaError

USER_ID = "user_id"
ITEM_ID = "item_id"
EVENT_TIME = "event_time"
"""UTC instant, microseconds: when the event happened, the request was made, or the signal value became true."""
CREATED_TIME = "created_time"
"""UTC instant at which a signal value was written; a value created after a request is not visible to it."""
EVENT_ID = "event_id"
REQUEST_ID = "request_id"
CANDIDATE_ID = "candidate_id"
LABEL = "label"
SPLIT = "split"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
KEYS = frozenset({USER_ID, ITEM_ID, EVENT_TIME, CREATED_TIME, EVENT_ID, REQUEST_ID, CANDIDATE_ID, LABEL, SPLIT})
DERIVED = frozenset({"gap_hours"})
"""Signals that no feature repo declares, since the token makers compute them."""

DENSE, SPARSE, BAG, EMBEDDING = "dense", "sparse", "bag", "embedding"
KINDS = (DENSE, SPARSE, BAG, EMBEDDING)
QUERY, HISTORY, CANDIDATE = "query", "history", "candidate"
MAKERS = (QUERY, HISTORY, CANDIDATE)
REQUEST_TIME, AFTER_ACTION = "request", "after"
"""Known when the request is made, or only after the user acted (so legal in history tokens alone)."""
USER, ITEM, PAIR, REQUEST = "user", "item", "pair", "request"
ENTITIES = (USER, ITEM, PAIR, REQUEST)

ROLE = "role"
"""Tag of a feature *view* whose source is one of the three tables below; every other view is joined point in time."""
EVENTS, REQUESTS, CANDIDATES = "events", "requests", "candidates"

TAG_KIND, TAG_MAKER, TAG_KNOWN, TAG_ENTITY, TAG_ORDERED = "kind", "maker", "known", "entity", "ordered"
TAG_RETIRED = "retired"


N_CATEGORIES_SHOWN = 8
"""Declared categories that a message lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signal:
    """One input feature, as declared in the feature repo.

    `minimum` and `maximum` are the declared range of a dense signal, `max_null_rate` the declared share of nulls (1.0
    where nothing is declared), `categories` the declared category set of a sparse or bag signal, `dim` the width of an
    embedding. A bag that is `ordered` is a sequence, its latest member last. A `retired` signal is there for the models
    that read it; new ones do not.
    """

    name: str
    kind: str
    makers: tuple[str, ...]
    entity: str
    view: str
    known: str = REQUEST_TIME
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None
    max_null_rate: float = 1.0
    categories: tuple[str, ...] | None = None
    dim: int | None = None
    ordered: bool = False
    retired: bool = False

    def __post_init__(self) -> None:
        problems = {
            f"kind {self.kind!r} is not one of {KINDS}": self.kind not in KINDS,
            f"makers {self.makers} are not among {MAKERS}": not self.makers or not set(self.makers) <= set(MAKERS),
            f"entity {self.entity!r} is not one of {ENTITIES}": self.entity not in ENTITIES,
            f"known {self.known!r} is neither 'request' nor 'after'": self.known not in (REQUEST_TIME, AFTER_ACTION),
            "it is known only after the action, so only the history maker may read it": self.known == AFTER_ACTION
            and set(self.makers) != {HISTORY},
            "only a bag can be ordered": self.ordered and self.kind != BAG,
            "an embedding needs dim": self.kind == EMBEDDING and not self.dim,
            f"max_null_rate {self.max_null_rate:g} is no share, 0 to 1": not 0 <= self.max_null_rate <= 1,
            f"minimum {self.minimum} is above maximum {self.maximum}": self.minimum is not None
            and self.maximum is not None
            and self.minimum > self.maximum,
            "its name is reserved for a key column": self.name.lower() in KEYS,
            "a name with an underscore in front is reserved for a column of our own": self.name.startswith("_"),
        }
        for problem, is_so in problems.items():
            if is_so:
                raise SchemaError(f"signal {self.name!r} of view {self.view!r}: {problem}; mend its tags in views.py")

    @property
    def as_read(self) -> Signal:
        """What a model depends on: the signal without its description and without what is normal of its values."""
        unsaid = replace(self, minimum=None, maximum=None, max_null_rate=1.0, categories=None)
        return replace(unsaid, description="", retired=False)

    @property
    def stored_range(self) -> tuple[float | None, float | None]:
        """The declared range as float32, in which values are kept: 0.1 stored so is above 0.1."""
        low, high = (None if bound is None else c_float(bound).value for bound in (self.minimum, self.maximum))
        return low, high

    @property
    def kind_in_words(self) -> str:
        """What form a value has; a model can read values of no other."""
        if self.kind == EMBEDDING:
            return f"an embedding of {self.dim} numbers"
        return "a sequence" if self.ordered else f"a {self.kind}" + (" signal" if self.kind in (DENSE, SPARSE) else "")

    @property
    def range_in_words(self) -> str:
        """The declared range, "" where there is none."""
        if self.minimum is None:
            return "" if self.maximum is None else f"at most {self.maximum:.10g}"
        at_least = f"{self.minimum:.10g}"
        return f"at least {at_least}" if self.maximum is None else f"{at_least} to {self.maximum:.10g}"

    @property
    def categories_in_words(self) -> str:
        """The first of the declared categories, and how many more there are."""
        listed = self.categories or ()
        more = len(listed) - N_CATEGORIES_SHOWN
        return ", ".join(listed[:N_CATEGORIES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _tags(kind: str, maker: str, entity: str, known: str, **extra: Any) -> dict[str, str]:
    tags = {TAG_KIND: kind, TAG_MAKER: maker, TAG_ENTITY: entity, TAG_KNOWN: known}
    return tags | {name: str(value) for name, value in extra.items() if value is not None}


def dense(
    maker: str,
    entity: str,
    *,
    known: str = REQUEST_TIME,
    minimum: float | None = None,
    maximum: float | None = None,
    max_null_rate: float | None = None,
) -> dict[str, str]:
    """Tags of a number. `maker` may name several, separated by commas: `"history,candidate"`."""
    return _tags(DENSE, maker, entity, known, minimum=minimum, maximum=maximum, max_null_rate=max_null_rate)


def sparse(
    maker: str,
    entity: str,
    *,
    known: str = REQUEST_TIME,
    categories: Iterable[str] | None = None,
    max_null_rate: float | None = None,
) -> dict[str, str]:
    """Tags of a category; whole numbers and booleans are written as text, as values of such columns are.

    Raises:
        SchemaError: `categories` is one string, or holds something else than these.
    """
    if isinstance(categories, str):
        raise SchemaError(f"categories={categories!r} is one string; write a tuple of them, as ({categories!r},)")
    listed = json.dumps([as_category(one) for one in categories]) if categories is not None else None
    return _tags(SPARSE, maker, entity, known, categories=listed, max_null_rate=max_null_rate)


def as_category(value: Any) -> str:
    """A category as text: as it is, or as a table's column of whole numbers or booleans becomes text.

    Raises:
        SchemaError: it is none of these.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise SchemaError(f"a category is a string, a whole number or a boolean, got {value!r}")


def bag(
    maker: str,
    entity: str,
    *,
    known: str = REQUEST_TIME,
    categories: Iterable[str] | None = None,
    max_null_rate: float | None = None,
) -> dict[str, str]:
    """Tags of a set of categories."""
    return sparse(maker, entity, known=known, categories=categories, max_null_rate=max_null_rate) | {TAG_KIND: BAG}


def sequence(
    maker: str,
    entity: str,
    *,
    known: str = REQUEST_TIME,
    categories: Iterable[str] | None = None,
    max_null_rate: float | None = None,
) -> dict[str, str]:
    """Tags of an ordered list of categories, the latest last: a bag whose order counts."""
    return bag(maker, entity, known=known, categories=categories, max_null_rate=max_null_rate) | {TAG_ORDERED: "true"}


def embedding(
    maker: str, entity: str, *, dim: int, known: str = REQUEST_TIME, max_null_rate: float | None = None
) -> dict[str, str]:
    """Tags of a precomputed vector of `dim` floats."""
    return _tags(EMBEDDING, maker, entity, known, dim=dim, max_null_rate=max_null_rate)


def retired(tags: dict[str, str]) -> dict[str, str]:
    """Tags of a signal that new models do not read any more, as `retired(dense("query", "user"))`.

    Models that were trained on it still can: they are compared with, rolled out and rolled back to as before.

    Raises:
        SchemaError: these are no tags.
    """
    if not isinstance(tags, dict):
        raise SchemaError(f'retired takes the tags of a signal, as retired(dense("query", "user")), got {tags!r}')
    return tags | {TAG_RETIRED: "true"}


def signal_from_tags(*, name: str, view: str, description: str, tags: Mapping[str, str]) -> Signal:
    """Read one `Field`'s tags.

    Raises:
        SchemaError: a tag is missing or its value is not one of those this module spells.
    """
    absent = [tag for tag in (TAG_KIND, TAG_MAKER, TAG_ENTITY) if tag not in tags]
    if absent:
        raise SchemaError(
            f"signal {name!r} of view {view!r} has no tag {absent[0]!r}; write tags=dense(...), sparse(...), bag(...), "
            "sequence(...) or embedding(...) from lrm.schema in views.py"
        )
    numbers: dict[str, Any] = {}
    for tag, read in (("minimum", float), ("maximum", float), ("max_null_rate", float), ("dim", int)):
        try:
            numbers |= {tag: read(tags[tag])} if tag in tags else {}
        except ValueError as error:
            raise SchemaError(
                f"signal {name!r} of view {view!r}: {tag} is no number, got {tags[tag]!r}; mend its tags in views.py"
            ) from error
    return Signal(
        name=name,
        kind=tags[TAG_KIND],
        makers=tuple(maker.strip() for maker in tags[TAG_MAKER].split(",")),
        entity=tags[TAG_ENTITY],
        view=view,
        known=tags.get(TAG_KNOWN, REQUEST_TIME),
        description=description,
        categories=tuple(json.loads(tags["categories"])) if "categories" in tags else None,
        ordered=tags.get(TAG_ORDERED) == "true",
        retired=tags.get(TAG_RETIRED) == "true",
        **numbers,
    )


def write_signals(signals: Iterable[Signal], path: Path) -> None:
    """Write `signals.json`."""
    path.write_text(json.dumps([asdict(signal) for signal in signals], indent=1) + "\n")


def read_signals(path: Path) -> tuple[Signal, ...]:
    """Read `signals.json`."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    for row in rows:
        row |= {name: tuple(row[name]) for name in ("makers", "categories") if row.get(name) is not None}
    return tuple(Signal(**row) for row in rows)


def for_maker(signals: Iterable[Signal], maker: str) -> tuple[Signal, ...]:
    """The signals that one token maker reads, in declared order."""
    return tuple(signal for signal in signals if maker in signal.makers)


def in_use(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """The signals that new models read, in declared order."""
    return tuple(signal for signal in signals if not signal.retired)
