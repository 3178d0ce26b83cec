"""The bodies that the server takes and gives; the OpenAPI document is made from them.

A wrong body is refused at its first mistake: to list all of them would cost far more than to read it, while nobody else
is heard. So lists are `fail_fast`, and of unknown fields one is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from lrm.limits import MAX_CANDIDATES, MAX_EVENTS, MAX_EXCLUDED, MAX_FIELDS, MAX_K
from lrm.schema import ITEM_ID, Signal
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, Event, PredictRequest

Id = StrictInt | StrictStr
FieldValues = Annotated[dict[str, Any], Field(max_length=MAX_FIELDS)]


class RequestBody(BaseModel):
    """What a caller sends: known fields only."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _first_unknown(cls, given: Any) -> Any:
        """Leave out all unknown fields but the first, which is then refused."""
        if not isinstance(given, dict) or given.keys() <= cls.model_fields.keys():
            return given
        first = next(name for name in given if name not in cls.model_fields)
        return {name: value for name, value in given.items() if name in cls.model_fields or name == first}


class PredictBody(RequestBody):
    """What both questions say."""

    user_id: Id
    time: AwareDatetime | None = Field(None, description="instant of the request, with a zone; default: now")
    context: FieldValues = Field(default_factory=dict, description="request signals and join keys")


class RecommendBody(PredictBody):
    """The best items for a user."""

    k: int = Field(10, ge=1, le=MAX_K, strict=True, description="how many items at most")
    candidates: list[Id | FieldValues] | None = Field(
        None, max_length=MAX_CANDIDATES, fail_fast=True, description="choose from these items only"
    )
    exclude: list[Id] = Field(
        default_factory=list, max_length=MAX_EXCLUDED, fail_fast=True, description="items to leave out"
    )
    exclude_seen: StrictBool = Field(False, description="leave out the items of the events that are kept of the user")

    def request(self) -> PredictRequest:
        """Return it as the engine takes it."""
        candidates = None if self.candidates is None else named(self.candidates)
        return PredictRequest(
            RECOMMEND,
            self.user_id,
            self.time,
            self.context,
            candidates,
            self.k,
            tuple(self.exclude),
            self.exclude_seen,
        )


class ScoreBody(PredictBody):
    """A probability for each candidate."""

    candidates: list[Id | FieldValues] = Field(
        min_length=1, max_length=MAX_CANDIDATES, fail_fast=True, description="items to score"
    )
    k: int | None = Field(None, ge=1, strict=True, description="how many items at most; default: all")

    def request(self) -> PredictRequest:
        """Return it as the engine takes it."""
        return PredictRequest(SCORE, self.user_id, self.time, self.context, named(self.candidates), self.k)


class EventBody(RequestBody):
    """Something a user did."""

    user_id: Id
    item_id: Id
    time: AwareDatetime | None = Field(None, description="when, with a zone; default: now")
    signals: FieldValues = Field(default_factory=dict, description="signals of the event, and join keys")

    def event(self) -> Event:
        """Return it as the engine takes it."""
        return Event(self.user_id, self.item_id, self.time, self.signals)


class EventsBody(RequestBody):
    """New events."""

    events: list[EventBody] = Field(min_length=1, max_length=MAX_EVENTS, fail_fast=True)


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str


class Item(BaseModel):
    """An item of an answer: `score` (log-probability) of a recommendation, `probability` of a scored candidate."""

    item_id: int | str
    score: float | None = None
    probability: float | None = None
    title: str | None = None


class Flags(BaseModel):
    """What was not known when the question was answered."""

    unknown_user: bool = Field(description="no event and no signal of the user is known")
    empty_history: bool = Field(description="the user has no event before the request")
    missing: list[str] = Field(description="signals without a value, of the request or of a candidate")
    expired: list[str] = Field(description="signals whose value had outlived its time-to-live")
    store_down: bool = Field(
        description="the online store did not answer: what was read of it last was used, the rest is missing"
    )
    damaged: bool = Field(description="a stored value cannot be read: it counts as missing, or as no history")


class Answer(BaseModel):
    """Items, best first."""

    user_id: int | str
    model: ModelName
    as_of: str = Field(description="up to when the release knows the world")
    time: str = Field(description="instant at which the question was answered")
    items: list[Item]
    unknown_items: list[int | str] = Field(description="candidates that are not in the catalogue")
    flags: Flags


class EventsTaken(BaseModel):
    """What became of the events."""

    accepted: int
    new: int = Field(description="those that were not known before; one older than all that are kept counts as known")
    unknown_items: list[int | str] = Field(
        description="items of the events that are not in the catalogue: taken, and without any signal of the item"
    )


class Refused(BaseModel):
    """A release that was not put in service."""

    release: str
    reason: str
    time: str
    retry_in_s: float | None = Field(description="seconds from then until it is tried again; null: never")


class Index(BaseModel):
    """How a large catalogue is searched, and how well: measured against every item's score when it was built."""

    lists: int
    effort: int = Field(description="lists searched for a request for few items")
    measured_effort: int = Field(description="lists searched when recall and error were measured")
    recall_at_20: float = Field(description="share of the best, or of what scores within .001 of the last of them")
    recall_at_100: float
    score_error: float = Field(description="largest difference of a score")
    n_requests: int = Field(description="on which recall and error were measured")


class Decoder(BaseModel):
    """What decodes requests over kept histories, as measured when the release was loaded."""

    runtime: str = Field(description="torch, onnxruntime or cuda_graphs")
    reason: str
    difference: float | None = Field(None, description="of a number, between the two")
    torch_ms: float | None = Field(None, description="milliseconds of one request alone")
    onnxruntime_ms: float | None = Field(None, description="milliseconds of one request alone")
    cuda_graphs_ms: float | None = Field(None, description="milliseconds of one request alone")
    speed: float | None = Field(
        None, description="times that the other is quicker than torch, alone and several together"
    )


class Declared(BaseModel):
    """A signal that a caller may send, as the feature repo declares it; null is always taken, and counts as missing."""

    kind: str = Field(
        description="dense: a number or boolean; sparse: a string, whole number or boolean; bag: a list of those; "
        "embedding: dim numbers"
    )
    minimum: float | None = None
    maximum: float | None = None
    categories: list[str] | None = Field(None, description="null: any")
    dim: int | None = None
    description: str = ""


class Model(BaseModel):
    """Which model answers, where it came from, and what a request may carry."""

    name: str
    version: str
    release: str
    sha256: str = Field(description="of the release: of the list of its files and their digests")
    digest: str = Field(
        description="pinned: it is the one that the server was told to expect; unpinned: it was told none"
    )
    as_of: str
    lineage: dict[str, Any] = Field(default_factory=dict)
    n_items: int | None = None
    index: Index | None = Field(None, description="null: the best items are found among all, exactly")
    decoder: Decoder | None = None
    keys: dict[str, str] = Field(default_factory=dict)
    context: dict[str, Declared] = Field(default_factory=dict, description="signals of a request")
    candidate_fields: dict[str, Declared] = Field(default_factory=dict, description="signals of a candidate")
    event_fields: dict[str, Declared] = Field(default_factory=dict, description="signals of an event")
    refused: Refused | None = Field(None, description="the last release that was not put in service")


class Status(BaseModel):
    """Health."""

    status: str
    detail: str | None = None


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


def declared(signals: Iterable[Signal]) -> dict[str, dict[str, Any]]:
    """What a caller may send, by name: a body of `Declared` each, without what is not declared."""
    read = {signal.name: Declared.model_validate(signal, from_attributes=True) for signal in signals}
    return {name: one.model_dump(exclude_defaults=True) for name, one in read.items()}


def named(candidates: list[int | str | dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Candidates as objects."""
    return tuple(one if isinstance(one, dict) else {ITEM_ID: one} for one in candidates)
