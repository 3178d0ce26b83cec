import threading

import pytest

from local.terminal import follow, line
from lrm.errors import DataError
from lrm.record import recorded

RAN = {"step": "train_lrm", "state": "succeeded", "seconds": 12.34, "error": None}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"step": "train_lrm", "state": "running"}, "  start   train_lrm"),
        (
            RAN | {"metrics": {"steps": 1200, "auc": 0.81234, "verdict": "keep"}},
            "  done    train_lrm                  12.3 s  steps 1,200, auc 0.8123, verdict keep",
        ),
        (
            RAN | {"state": "reused", "metrics": {"steps": 7}},
            "  reused  train_lrm                          steps 7",
        ),
        (
            RAN | {"state": "failed", "metrics": {}, "error": {"type": "DataError", "message": "no rows\nmore"}},
            "  FAILED  train_lrm                  12.3 s  DataError: no rows",
        ),
    ],
)
def test_a_line_says_what_a_person_wants_to_know(record, expected):
    assert line(record) == expected


def test_at_most_four_short_metrics_are_shown():
    metrics = {"path": "x" * 40, "none": None, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert line(RAN | {"metrics": metrics}).endswith("a 1, b 2, c 3, d 4")


def test_every_change_is_said_once_and_the_last_one_too(tmp_path, monkeypatch):
    monkeypatch.setenv("LRM_RUN_DIR", str(tmp_path / "run"))
    ended, started = threading.Event(), threading.Event()

    @recorded("knead", output="out")
    def knead(out):
        assert started.wait(10)
        raise DataError("no flour")

    def work():
        with pytest.raises(DataError, match="no flour"):
            knead(tmp_path / "out")
        ended.set()

    said: list[str] = []

    def say(text: str) -> None:
        said.append(" ".join(text.split()[:2]))
        started.set()

    thread = threading.Thread(target=work)
    thread.start()
    follow(tmp_path / "run", lambda: not ended.is_set(), say)
    thread.join()
    assert said == ["start knead", "FAILED knead"]
