"""Answers to prediction requests, as they go to the caller: plain dictionaries with typed keys.

`lrm.serving.http.schemas` describes the same keys to callers; a test compares the two.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

Key = int | str


class AnswerItem(TypedDict):
    """One item: `score` where the catalogue was ranked, `probability` where candidates were scored."""

    item_id: Key
    score: NotRequired[float]
    probability: NotRequired[float]
    title: NotRequired[str]


class Flags(TypedDict):
    """What was not known when the request was answered."""

    unknown_user: bool
    empty_history: bool
    missing: list[str]
    expired: list[str]
    store_down: bool
    damaged: bool


class ModelName(TypedDict):
    """Which model answered."""

    name: str
    version: str


class Answer(TypedDict):
    """Items, best first, and what they rest on."""

    user_id: Key
    model: ModelName
    as_of: str
    time: str
    items: list[AnswerItem]
    unknown_items: list[Key]
    flags: Flags
