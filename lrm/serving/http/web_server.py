"""Run a server as a process: listen, load, answer, and stop when told to."""

from __future__ import annotations

import gc
import signal
import socket
import sys
import threading
import time

import uvicorn

from lrm.serving.http.app import make_app
from lrm.serving.http.connections import KEEP_ALIVE_S, max_connections
from lrm.serving.http.graceful_shutdown import GracefulServer
from lrm.serving.http.listening import bound_sockets
from lrm.serving.http.load_shedding import early_rejection, load_shedding_protocol
from lrm.serving.http.routes import PREDICT_PATHS
from lrm.serving.http.server import Options, Server
from lrm.serving.logs import log, start_logs
from lrm.serving.release import Release

DRAIN_S = 20
"""Seconds that requests in progress get to finish when the server stops."""
SWITCH_INTERVAL_S = 0.0005
"""Seconds that the worker thread keeps the interpreter while the thread that talks to callers waits for it."""
GC_THRESHOLDS = (50_000, 20, 20)
"""Objects between two garbage collections, and collections between two of older objects: a request makes thousands of
objects, and next to none of them form a cycle."""


def serve(release: Release, options: Options = Options(), *, host: str, port: int) -> None:  # noqa: B008 - immutable
    """Serve until told to stop (SIGTERM, Ctrl-C); requests in progress are answered first.

    Raises:
        ServingError: the port is taken, or cannot be listened on; nothing was loaded then.
        Exception: the error that kept the release from loading.
    """
    with bound_sockets(host, port) as sockets:
        _serve_on(sockets, release, options, host=host, port=port)


def _serve_on(sockets: list[socket.socket], release: Release, options: Options, *, host: str, port: int) -> None:
    start_logs()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    is_told_to_stop = threading.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):  # uvicorn stops, then raises the signal once more
        signal.signal(stop_signal, lambda *_: is_told_to_stop.set())
    start, address = time.monotonic(), f"http://{host}:{port}"

    def log_ready() -> None:
        seconds = round(time.monotonic() - start, 1)
        log(f"{release.name} version {release.version} is ready on {address}", seconds=seconds)

    def stop() -> None:
        web_server.should_exit = True

    def announce_stop() -> None:
        server.is_stopping = True

    server = Server(release, options, on_ready=log_ready, on_failure=stop)
    log(
        f"loading {release.name} version {release.version}",
        release=release.folder.name,
        as_of=str(release.as_of),
        sha256=release.sha256,
        digest=server.digest,
    )
    web_server = GracefulServer(
        web_config(server, host=host, port=port), delay_s=options.shutdown_delay_s, on_stop=announce_stop
    )
    if not is_told_to_stop.is_set():
        web_server.run(sockets)
    log("stopped")
    if server.releases.failure is not None:
        raise server.releases.failure


def web_config(server: Server, *, host: str, port: int) -> uvicorn.Config:
    """Return how uvicorn runs the application of a server."""

    def is_full() -> bool:
        return server.predictions.is_full and not server.is_stopping  # the middleware then closes the connection

    reject = early_rejection(
        server.metrics, server.options.limits, server.rejections, paths=PREDICT_PATHS, is_full=is_full
    )
    return uvicorn.Config(
        make_app(server),
        host=host,
        port=port,
        http=load_shedding_protocol(reject, places=max_connections()),
        ws="none",  # no route speaks it, and a handshake would pass the middleware
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        proxy_headers=False,  # nothing here reads the caller's address or scheme
        timeout_graceful_shutdown=DRAIN_S,
    )
