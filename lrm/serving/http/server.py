"""One server's parts, and its work in the background. Routes are given this object and nothing else.

The release is loaded in the background: `/healthz` answers at once, `/readyz` once the model is loaded and warm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lrm.serving.engine.answer import Answer
from lrm.serving.engine.batching import Batcher, Unfinished
from lrm.serving.engine.chunks import Job, advance, cost_of, next_chunk
from lrm.serving.engine.request_checks import Event
from lrm.serving.engine.rust_panics import without_panics
from lrm.serving.http.health import ANSWERS, EVENTS, RELEASES, Health
from lrm.serving.http.metrics import Metrics, new_metrics
from lrm.serving.http.middleware import Limits, RejectionLog
from lrm.serving.release import Release
from lrm.serving.releases.hot_reload import HotReload

if TYPE_CHECKING:
    from lrm.serving.engine.session import Session

MAX_INGEST_REQUESTS = 32
"""Requests with events that may wait."""
MAX_INGEST_BATCH = 16
"""Users whose events are written together; prediction requests are answered between two such writes."""
MAX_INGEST_QUEUE = 400
"""Users whose events may wait."""
PINNED, UNPINNED = "pinned", "unpinned"


class Options(NamedTuple):
    """How a server behaves."""

    limits: Limits = Limits()
    max_batch: int = 32
    """Requests answered together at most."""
    max_batch_delay_s: float = 0.0
    """Seconds that the first request of a batch waits for others."""
    max_queue: int = 64
    """Requests that may wait."""
    deadline_s: float = 2.0
    """Seconds after which a request is given up."""
    kv_cache_bytes: int = 256 * 2**20
    """Most bytes that the kept histories take."""
    effort: int | None = None
    """Lists of a large catalogue's index to search for each request; None: as measured for the release; 0: no index."""
    events: Path | None = None
    """Folder that keeps new events; None: beside the release."""
    follow: Path | None = None
    """A link; the server serves what it names, now and later."""
    is_pinned: bool = False
    """Whether the release's digest was given from outside and compared."""
    shutdown_delay_s: float = 0.0
    """Seconds that a server still answers after it is told to stop, so that callers learn to go elsewhere."""


class Server:
    """The release in service, the queues in front of it, and what an operator watches."""

    def __init__(
        self,
        release: Release,
        options: Options = Options(),  # noqa: B008 - immutable
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is loaded before `start`.

        Args:
            release: the release to load.
            options: how to behave.
            on_ready: called once the release is loaded and warm.
            on_failure: called if it cannot be loaded; `releases.failure` is then the error.
        """
        self.options = options
        self.releases = HotReload(
            release, kv_cache_bytes=options.kv_cache_bytes, effort=options.effort, events=options.events
        )
        self.predictions: Batcher[Job, Answer] = Batcher(
            self._predict_batch,
            max_size=options.max_batch,
            max_batch_delay_s=options.max_batch_delay_s,
            max_queue=options.max_queue,
            deadline_s=options.deadline_s,
            cost_of=cost_of,
        )
        self.ingestion: Batcher[list[Event], int] = Batcher(
            self._ingest_batch, max_size=MAX_INGEST_BATCH, max_queue=MAX_INGEST_QUEUE, deadline_s=None
        )
        self.n_ingest_requests = 0
        """Requests with events that wait."""
        self.health = Health({ANSWERS: self.predictions, EVENTS: self.ingestion})
        self.metrics: Metrics = new_metrics(self._gauges(), self._counts())
        self.rejections = RejectionLog()
        self.is_stopping = False
        """Whether the server was told to stop, and says so to its callers."""
        self._on_ready, self._on_failure = on_ready, on_failure

    @property
    def digest(self) -> str:
        """Whether the release's digest was given from outside."""
        return PINNED if self.options.is_pinned else UNPINNED

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and warm, and every background loop runs."""
        return self.releases.session is not None and not self.health.problem()

    def start(self) -> None:
        """Load the release, follow the link and answer, all in the background of this event loop."""
        self.health.start(RELEASES, self._load_and_follow())
        self.health.start(ANSWERS, self.predictions.run())
        self.health.start(EVENTS, self.ingestion.run())

    async def stop(self) -> None:
        """End all background work."""
        await self.health.stop()
        self.releases.close()

    async def _load_and_follow(self) -> None:
        await self.releases.start()
        (self._on_failure if self.releases.failure else self._on_ready)()
        if self.options.follow is not None and not self.releases.failure:
            await self.releases.follow(self.options.follow, self.releases.release.folder.resolve())

    async def _predict_batch(self, jobs: list[Job]) -> list[Answer | Unfinished[Job]]:
        self.metrics.batch_size.observe(len(jobs))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.releases.worker, without_panics, predict_jobs, jobs)

    async def _ingest_batch(self, pushes: list[list[Event]]) -> list[int]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.releases.worker, without_panics, self._take_events, pushes)

    def _take_events(self, pushes: list[list[Event]]) -> list[int]:
        from lrm.serving.engine.event_ingest import take_events

        session = self.releases.session
        assert session is not None  # events are taken only once a release is loaded
        return take_events(session, pushes)

    def _gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        return {
            "lrm_ready": ("Whether the model is loaded and warm, and every loop runs", lambda: float(self.is_ready)),
            "lrm_release_pinned": ("Whether the release's digest was given", lambda: float(self.options.is_pinned)),
            "lrm_queue_length": ("Prediction requests that wait", lambda: self.predictions.n_waiting),
            "lrm_kv_cache_bytes": (
                "Bytes of kept histories",
                lambda: self._of_session(lambda session: session.user_states.n_bytes),
            ),
        }

    def _counts(self) -> dict[str, tuple[str, str, Callable[[], dict[str, float]]]]:
        def lookups() -> dict[str, float]:
            session = self.releases.session
            return {} if session is None else dict(session.counts)

        return {
            "lrm_kv_cache_lookups": ("Histories found in the cache (hit) or decoded (miss)", "result", lookups),
            "lrm_reloads": ("Releases loaded while serving, by outcome", "result", lambda: dict(self.releases.reloads)),
        }

    def _of_session(self, read: Callable[[Session], float]) -> float:
        session = self.releases.session
        return 0.0 if session is None else float(read(session))


def predict_jobs(jobs: list[Job]) -> list[Answer | Unfinished[Job]]:
    """Answer each job, or its next chunk, by the release that checked it. Runs on the worker thread."""
    from lrm.serving.engine.predict import predict

    results: dict[int, Answer | Unfinished[Job]] = {}
    for session in {id(job.session): job.session for job in jobs}.values():
        places = [place for place, job in enumerate(jobs) if job.session is session]
        answers = predict(session, [next_chunk(jobs[place]) for place in places])
        results |= {place: advance(jobs[place], answer) for place, answer in zip(places, answers, strict=True)}
    return [results[place] for place in range(len(jobs))]
