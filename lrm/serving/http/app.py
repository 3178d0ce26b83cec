"""The HTTP edge: questions in, answers out, and what an operator watches.

The release is loaded in the background: `/healthz` answers at once, `/readyz` once the model is loaded and warm.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from lrm.serving.engine.batching import Batcher, Rest
from lrm.serving.engine.chunks import Work, after, next_piece, work_of
from lrm.serving.engine.rust_panics import contained
from lrm.serving.http.connections import KEEP_ALIVE_S, max_connections
from lrm.serving.http.graceful_shutdown import Leaving
from lrm.serving.http.health import ANSWERS, EVENTS, RELEASES, Health
from lrm.serving.http.listening import holding
from lrm.serving.http.load_shedding import shedder, shedding
from lrm.serving.http.metrics import new_meters
from lrm.serving.http.middleware import Limits, Shed, guard
from lrm.serving.http.routes import (
    RECOMMEND_PATH,
    SCORE_PATH,
    add_questions,
    add_refusals,
    add_status,
    declare_key,
    new_pusher,
)
from lrm.serving.logs import log, start_logs
from lrm.serving.release import Release
from lrm.serving.releases.hot_reload import InService

DRAIN_S = 20
"""Seconds that requests under way are given when the server stops."""


SWITCH_S = 0.0005
"""How long the thread that answers keeps the interpreter while the one that talks to callers waits for it."""
COLLECT_AFTER = (50_000, 20, 20)
"""Objects after which garbage is looked for, and how many times so before older ones are looked at: a request makes
thousands, of which next to none form a circle."""


PINNED, UNPINNED = "pinned", "unpinned"


class Options(NamedTuple):
    """How a server behaves."""

    limits: Limits = Limits()
    max_batch: int = 32
    """Questions answered together at most."""
    max_wait_s: float = 0.0
    """Latency budget: how long a lone question waits for company."""
    max_waiting: int = 64
    """Questions that may wait."""
    deadline_s: float = 2.0
    """Seconds after which a question is given up."""
    prefix_bytes: int = 256 * 2**20
    """Bound of the decoded histories held."""
    effort: int | None = None
    """Lists of a large catalogue's index searched for a request; None: as the release was measured; 0: no index."""
    events: Path | None = None
    """Where new events are kept; None: beside the release."""
    follow: Path | None = None
    """A link: what it comes to name is served."""
    is_pinned: bool = False
    """Whether the release's digest was named from outside, and so is the one that was meant."""
    leave_s: float = 0.0
    """Seconds for which a server that is told to stop still answers, so that callers learn to go elsewhere."""


def make_app(
    release: Release,
    options: Options = Options(),  # noqa: B008 - immutable
    *,
    on_ready: Callable[[], None] = lambda: None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application that serves one release, and those that follow it.

    Args:
        release: the release, not loaded yet.
        options: how to behave.
        on_ready: called once it is loaded and warm.
        on_failure: called if it cannot be loaded; the error is then `app.state.held.failure`.
    """
    # The page at /docs loads nothing from other hosts.
    app = FastAPIOffline(
        redoc_url=None,
        title="Token Factory",
        description=f"Recommendations of {release.name}.",
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    held = InService(release, prefix_bytes=options.prefix_bytes, effort=options.effort, events=options.events)

    async def answer(asked: list[Work]) -> list[dict[str, Any] | Rest[Work]]:
        meters.batch_size.observe(len(asked))
        return await asyncio.get_running_loop().run_in_executor(held.worker, contained, _answer, asked)

    batcher = Batcher(
        answer,
        max_size=options.max_batch,
        max_wait_s=options.max_wait_s,
        max_waiting=options.max_waiting,
        within_s=options.deadline_s,
        work_of=work_of,
    )
    pusher = new_pusher(held)
    health = Health({ANSWERS: batcher, EVENTS: pusher})

    def is_ready() -> float:
        return float(held.service is not None and not health.problem())

    meters = new_meters(
        {
            "lrm_ready": ("Whether the model is loaded and warm, and every loop runs", is_ready),
            "lrm_release_pinned": ("Whether the release's digest was named", lambda: float(options.is_pinned)),
            "lrm_queue_length": ("Questions that wait", lambda: batcher.n_waiting),
            "lrm_prefix_bytes": ("Decoded histories held", lambda: _of_prefixes(held, lambda s: s.remembered.n_bytes)),
            "lrm_prefix_hits": ("Histories at hand", lambda: _of_prefixes(held, lambda s: s.counts["hit"])),
            "lrm_prefix_misses": ("Histories decoded", lambda: _of_prefixes(held, lambda s: s.counts["miss"])),
            "lrm_swaps": ("Releases put in service while serving", lambda: held.swaps["swapped"]),
            "lrm_swaps_refused": ("Releases that were not fit", lambda: held.swaps["refused"]),
            "lrm_swaps_put_off": (
                "Tries to load a release that ended in a fault that may pass",
                lambda: held.swaps["put_off"],
            ),
        }
    )
    app.state.held, app.state.batcher, app.state.pushes, app.state.meters = held, batcher, 0, meters
    app.state.pusher, app.state.health = pusher, health
    app.state.on_ready, app.state.on_failure, app.state.follow = on_ready, on_failure, options.follow
    app.state.served, app.state.is_leaving = {}, False
    app.state.digest = PINNED if options.is_pinned else UNPINNED

    shed, asking = Shed(), (RECOMMEND_PATH, SCORE_PATH)

    def is_full(path: str) -> bool:
        return path in asking and batcher.is_full

    def is_leaving() -> bool:
        return bool(app.state.is_leaving)

    def is_full_now() -> bool:
        return batcher.is_full and not is_leaving()  # then the usual way, which closes the connection

    guarding: dict[str, Any] = {"meters": meters, "limits": options.limits, "shed": shed}
    app.add_middleware(guard, **guarding, is_full=is_full, is_leaving=is_leaving)
    app.state.turn_away = shedder(meters, options.limits, shed, paths=asking, is_full=is_full_now)
    add_refusals(app)
    add_questions(app)
    add_status(app)
    if options.limits.api_key:
        declare_key(app)
    return app


def serve(release: Release, options: Options = Options(), *, host: str, port: int) -> None:  # noqa: B008 - immutable
    """Serve until asked to stop (SIGTERM, Ctrl-C); requests under way are answered first.

    Raises:
        ServingError: the port is taken, or cannot be listened on; nothing was loaded then.
        Exception: whatever kept the release from loading.
    """
    with holding(host, port) as sockets:
        _serve_on(sockets, release, options, host=host, port=port)


def _serve_on(sockets: list[socket.socket], release: Release, options: Options, *, host: str, port: int) -> None:
    start_logs()
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*COLLECT_AFTER)
    told_to_stop = threading.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):  # the web server stops, then raises what stopped it once more
        signal.signal(stop_signal, lambda *_: told_to_stop.set())
    start, address = time.monotonic(), f"http://{host}:{port}"

    def say_ready() -> None:
        seconds = round(time.monotonic() - start, 1)
        log(f"{release.name} version {release.version} is ready on {address}", seconds=seconds)

    def stop() -> None:
        server.should_exit = True

    app = make_app(release, options, on_ready=say_ready, on_failure=stop)
    facts: dict[str, Any] = {"release": release.folder.name, "as_of": str(release.as_of), "sha256": release.sha256}
    facts["digest"] = PINNED if options.is_pinned else UNPINNED
    log(f"loading {release.name} version {release.version}", **facts)

    def take_leave() -> None:
        app.state.is_leaving = True

    server = Leaving(web_config(app, host=host, port=port), leave_s=options.leave_s, on_leave=take_leave)
    if not told_to_stop.is_set():
        server.run(sockets)
    log("stopped")
    if app.state.held.failure is not None:
        raise app.state.held.failure


def web_config(app: FastAPI, *, host: str, port: int) -> uvicorn.Config:
    """How the web server runs an application of `make_app`."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=shedding(app.state.turn_away, places=max_connections()),
        ws="none",  # no route speaks it, and a handshake would pass the guard
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        proxy_headers=False,  # nothing here asks who called, or by which scheme
        timeout_graceful_shutdown=DRAIN_S,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load, follow and batch in the background; stop all on the way out."""
    held: InService = app.state.held
    link: Path | None = app.state.follow

    async def load_and_follow() -> None:
        await held.start()
        (app.state.on_failure if held.failure else app.state.on_ready)()
        if link is not None and not held.failure:
            await held.follow(link, held.release.folder.resolve())

    health: Health = app.state.health
    for name, loop in (
        (RELEASES, load_and_follow()),
        (ANSWERS, app.state.batcher.run()),
        (EVENTS, app.state.pusher.run()),
    ):
        health.start(name, loop)
    yield
    await health.stop()
    held.close()


def _answer(asked: list[Work]) -> list[dict[str, Any] | Rest[Work]]:
    """Answer each question, or the next piece of it, by the release that it was checked against."""
    from lrm.serving.engine.predict import answer

    answers: list[Any] = [None] * len(asked)
    for service in {id(work.service): work.service for work in asked}.values():
        places = [place for place, work in enumerate(asked) if work.service is service]
        pieces = [next_piece(asked[place]) for place in places]
        for place, one in zip(places, answer(service, pieces), strict=True):
            answers[place] = after(asked[place], one)
    return answers


def _of_prefixes(held: InService, read: Callable[[Any], float]) -> float:
    return 0.0 if held.service is None else float(read(held.service))
