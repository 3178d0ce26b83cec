"""The release in service, and how another takes its place while requests are answered.

Everything that touches the stores or the model runs on one thread, the *worker*; a release that comes to follow is
verified, loaded and proved on another beside it. A question is answered by the release that it was checked against.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time as clock
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrm.errors import LrmError, StoreError
from lrm.serving.engine.rust_panics import without_panics
from lrm.serving.logs import log
from lrm.serving.release import Release, read_release

if TYPE_CHECKING:
    from lrm.serving.engine.session import Session

LOOK_EVERY_S = 1.0
WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
"""Seconds until a release that could not be loaded is tried again: at first, doubled after each try, and at most."""


class HotReload:
    """What a server serves now: `service` is set once it is fit to answer, and reading it never waits."""

    def __init__(self, release: Release, **opened: Any) -> None:
        """Hold a release that is not loaded yet; `opened` is how it, and each that follows, is opened."""
        self.release, self.opened = release, opened
        self.session: Session | None = None
        self.failure: Exception | None = None
        """What kept the first release from loading."""
        self.refused: dict[str, Any] | None = None
        """The last release that was not put in service; `retry_in_s` says when it is tried again, null: never."""
        self.reloads = {"loaded": 0, "refused": 0, "retried": 0}
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="answer")
        self.loader = ThreadPoolExecutor(1, thread_name_prefix="load")

    async def start(self) -> None:
        """Load the first release; a failure is kept in `failure`."""
        try:
            session = await _on(self.worker, _loaded, self.release, self.opened)
            await _on(self.worker, settle)
            self.session = session
        except Exception as error:
            self.failure = error

    async def follow(self, link: Path, seen: Path) -> None:
        """Serve what a link comes to name, for ever; a release that is not fit is refused, and the old one stays.

        A fault that may pass, of a store above all, refuses nothing: the release is tried again, as long as the link
        names it.

        Args:
            link: names a release, most of the time.
            seen: the one that is served; what the link names counts once it is another.
        """
        wait, until = WAIT_S, 0.0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            target = _named(link)
            if target is None or (target == seen and (not until or clock.monotonic() < until)):
                continue
            if target != seen:
                seen, wait = target, WAIT_S
            until = 0.0
            try:
                await self.reload(target)
            except Exception as error:
                may_pass = _may_pass(error)
                self._refuse(target, error, retry_in_s=wait if may_pass else None)
                if may_pass:
                    until, wait = clock.monotonic() + wait, min(2 * wait, LONGEST_WAIT_S)

    async def reload(self, folder: Path) -> None:
        """Verify, load and prove a release, and put it in service.

        Raises:
            LrmError: it was tampered with, cannot be loaded, or does not score as offline.
        """
        before = self.session
        assert before is not None  # it is followed only once the first release is loaded
        log("loading", release=folder.name)
        release = await _on(self.loader, read_release, folder)
        session = await _on(self.loader, _loaded, release, self.opened | {"is_live": not before.is_replay})
        await _on(self.worker, self._put, session)
        del session, before
        await _on(self.loader, settle)
        self.reloads["loaded"] += 1
        log("reloaded", release=folder.name, version=release.version)

    def close(self) -> None:
        """Stop both threads, after what they do now."""
        self.session = None
        for pool in (self.loader, self.worker):
            pool.shutdown(wait=True, cancel_futures=True)
        gc.unfreeze()  # what is still there at the very end is taken for leaked

    def _put(self, session: Session) -> None:
        """On the worker: what was decoded while the release was proved may lack an event that came since."""
        session.user_states.clear()
        if self.refused is not None and self.refused["release"] == session.release.folder.name:
            self.refused = None
        self.session, self.release = session, session.release

    def _refuse(self, folder: Path, error: Exception, *, retry_in_s: float | None) -> None:
        self.reloads["refused" if retry_in_s is None else "retried"] += 1
        reason = str(error) if isinstance(error, LrmError) else f"it cannot be loaded ({type(error).__name__})"
        self.refused = {
            "release": folder.name,
            "reason": reason,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "retry_in_s": retry_in_s,
        }
        facts = {"release": folder.name, "retry_in_s": retry_in_s}
        what = "refused" if retry_in_s is None else "could not be loaded and is tried again"
        log(f"release {what}; the one in service stays", level=logging.ERROR, error=error, **facts)


def _loaded(release: Release, opened: dict[str, Any]) -> Session:
    import torch

    from lrm.model.device import use_device
    from lrm.serving.engine.decoding import with_quickest_decoder
    from lrm.serving.engine.session import open_session
    from lrm.serving.releases.probe import prove

    use_device()  # each thread has its own
    torch.set_num_threads(1)  # a request is small work: more threads would wait for each other
    session = with_quickest_decoder(open_session(release, **opened))
    prove(session)
    return session


def settle() -> None:
    """Have the garbage collector pass over everything that is there now: a loaded model stays until the next one.

    A full collection looks at every object, stops every thread meanwhile, for a fifth of a second with these libraries
    loaded, and comes every few seconds under load. What is spared here is freed all the same once nothing refers to it;
    only what refers to itself in a circle waits for the next call.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _may_pass(error: Exception) -> bool:
    """Whether a release that could not be loaded may be fit all the same: nothing was found wrong with it."""
    return not isinstance(error, LrmError) or isinstance(error, StoreError) or isinstance(error.__cause__, OSError)


def _named(link: Path) -> Path | None:
    """What a link names; None where that is nothing, or cannot be told now."""
    try:
        return link.resolve(strict=True)
    except (OSError, RuntimeError):  # the latter: it names itself
        return None


async def _on(pool: ThreadPoolExecutor, work: Any, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, without_panics, work, *arguments)
