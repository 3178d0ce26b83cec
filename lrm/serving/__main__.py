"""`python -m lrm.serving`: answer requests with one released version."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lrm.errors import LrmError, ServingError
from lrm.process_environment import settle
from lrm.registry.address import in_state

CURRENT = "current"
LEAST_KEY = 16
"""Characters of an API key: 64 bits where they are hexadecimal digits."""
NUMBERS = (
    ("--port", 0, 65_535, 8000, "port to listen on"),
    ("--max-batch-size", 1, 1_000_000, 32, "questions answered together"),
    ("--max-batch-delay-ms", 0, 60_000, 0, "a lone question waits so long for company"),
    ("--max-queue", 1, 1_000_000, 64, "questions that may wait; more get 429"),
    ("--deadline-ms", 1, 600_000, 2000, "a question is given up after this"),
    ("--kv-cache-mb", 1, 1_000_000, 256, "bound of the decoded histories held"),
    (
        "--shutdown-delay-s",
        0,
        600,
        0,
        "told to stop (SIGTERM), answer for so many seconds more: /readyz with 503, the rest with `connection: close`",
    ),
)
"""Options: name, least, most, default, and what it says."""

EPILOG = """examples:
  python -m lrm.serving
      look up the champion, serve its latest release from state/serving/<name>/, and follow the link `current` there:
      what a later roll-out or rollback puts in service is verified, loaded beside, and takes over without a pause
  python -m lrm.serving --state elsewhere/state --name complete-journey --port 8001
      the same with the registry and the releases of another place, where there are several models, on another port
  python -m lrm.serving --release state/serving/complete-journey/current
      serve that release and no other; the registry is not asked, and need not be there
  python -m lrm.serving --follow state/serving/complete-journey/current
      serve what the link names, now and later; no registry either
  curl -s localhost:8000/v1/recommend -H 'content-type: application/json' -d '{"user_id": 20, "k": 5}'

routes:
  POST /v1/recommend  the k best items: {user_id, k, time, context, candidates, exclude, exclude_seen}; only user_id is
                      needed
  POST /v1/score      a probability for each of the candidates: {user_id, candidates, time, context, k}
  POST /v1/events     new events, which the next answers know: {events: [{user_id, item_id, time, signals}]}
  GET  /v1/model      name, version, lineage, and the fields that `context`, `candidates` and `signals` may carry
  GET  /healthz /readyz /metrics /docs /openapi.json

A request that names no time is asked at the present instant, or, where the data ends more than a day before the server
starts, at the instant at which it ends: old data is a replayed world, whose clock new events move.
"""


def main(argv: list[str] | None = None) -> int:
    """Serve until stopped; returns the exit status."""
    parser = _parser()
    given = parser.parse_args(argv)
    if given.sha256 and (given.release is None or given.follow is not None):
        parser.error("--sha256 is the digest of one release: name it with --release, and leave --follow out")
    try:
        if given.release is None and given.follow is None:
            folder = champion_folder(given.registry or in_state(given.state), given.name, given.state)
            again = [*(argv or sys.argv[1:]), "--release", str(folder), "--follow", str(folder.parent / CURRENT)]
            # A fresh process: the registry's client is not needed from here on, and weighs more than the model.
            os.execv(sys.executable, [sys.executable, "-m", "lrm.serving", *again])
        _serve(given)
    except LrmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lrm.serving",
        description="Answer recommendation requests over HTTP with one released version.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--release", type=Path, help="serve this release folder, as roll_out writes them")
    parser.add_argument("--follow", type=Path, help="a link: serve what it comes to name")
    parser.add_argument(
        "--sha256",
        default="",
        help="with --release alone: the digest of the release (fetch --push printed it, /v1/model says it). "
        "Without one the server says that what it serves is unpinned",
    )
    parser.add_argument(
        "--registry",
        default="",
        help="without --release and --follow: serve the champion of this registry (default: mlflow.db in --state)",
    )
    parser.add_argument("--name", default="", help="the registered model; needed only where there are several")
    parser.add_argument(
        "--state", type=Path, default=Path("state"), help="holds serving/ and mlflow.db (default: %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--events",
        type=Path,
        metavar="DIR",
        help="where new events are kept, for this release and those that follow (default: `events` beside the release; "
        "a store that is not a local file keeps them itself)",
    )
    parser.add_argument("--api-key-file", type=Path, help="ask callers of /v1/ for the key that this file holds")
    for name, least, most, default, says in NUMBERS:
        help_text = f"{says} (default: %(default)s)"
        parser.add_argument(name, type=_between(least, most), default=default, metavar="N", help=help_text)
    parser.add_argument(
        "--search-effort",
        type=_between(0, 1_000_000),
        metavar="N",
        help="lists of a large catalogue's index that are searched for a request; 0: no index, every item is scored "
        "(default: as measured when the release was built; /v1/model has it, and the recall)",
    )
    return parser


def _between(least: int, most: int) -> Callable[[str], int]:
    """Reads a whole number of those, both among them."""

    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least:,} to {most:,}, got {text!r}")
        return int(text)

    return read


def champion_folder(registry: str, name: str, state: Path) -> Path:
    """The latest release of the champion.

    Raises:
        RegistryError: there is no such registry or model.
        ServingError: MLflow is not installed, as in the image that serves; nothing was promoted yet; or the champion
            has no release: it was not rolled out, or so long ago that its release was removed.
    """
    from lrm.registry.run import show
    from lrm.serving.release import latest_releases, root_of

    try:
        held = show(registry, name)
    except ModuleNotFoundError as error:
        raise ServingError(
            f"no registry can be asked here, for {error.name} is not installed (the image `serve` is without it); name "
            "the release with --release, or a link to it with --follow"
        ) from error
    if not held["champion"]:
        raise ServingError(
            f"nothing was promoted yet: {held['name']} has no champion in {registry}; run `make run` first"
        )
    root = root_of(state, str(held["name"]))
    releases = latest_releases(root)
    if held["champion"] not in releases:
        raise ServingError(
            f"version {held['champion']} of {held['name']} is champion, but {root} holds no release of it (it has "
            f"version {', '.join(releases) or 'none'}; old ones are removed); the step roll_out makes it again: run "
            "`make run`, or name another folder with --state"
        )
    return releases[held["champion"]]


def read_key(path: Path) -> bytes:
    """The API key that a mounted file holds: one line, as it stands in a header.

    Raises:
        ServingError: there is no such file, or what it holds is no key, or one that can be guessed.
    """
    if not path.is_file():
        raise ServingError(f"{path} is no file; mount one with the API key in it, or leave --api-key-file out")
    lines = path.read_bytes().splitlines()
    key = lines[0] if lines else b""
    wrong = {
        "it is empty": not any(lines),
        f"it has {len(lines)} lines": len(lines) > 1,
        "it has a space, or a character that no header can carry": any(not 0x21 <= one <= 0x7E for one in key),
        f"it has {len(key)} characters, at least {LEAST_KEY} are needed": len(key) < LEAST_KEY,
    }
    found = next((says for says, is_so in wrong.items() if is_so), "")
    if found:
        raise ServingError(f"{path} holds no API key: {found}; write one line, such as `openssl rand -hex 32` gives")
    return key


def _serve(given: argparse.Namespace) -> None:
    from lrm.serving.http.middleware import Limits
    from lrm.serving.http.server import Options
    from lrm.serving.http.web_server import serve
    from lrm.serving.release import read_release

    key = read_key(given.api_key_file) if given.api_key_file else b""
    options = Options(
        limits=Limits(api_key=key),
        max_batch=given.max_batch_size,
        max_batch_delay_s=given.max_batch_delay_ms / 1000,
        max_queue=given.max_queue,
        deadline_s=given.deadline_ms / 1000,
        kv_cache_bytes=given.kv_cache_mb * 2**20,
        effort=given.search_effort,
        events=given.events,
        follow=given.follow,
        shutdown_delay_s=given.shutdown_delay_s,
        is_pinned=bool(given.sha256),
    )
    release = read_release((given.release or given.follow).resolve())
    if given.sha256 not in ("", release.sha256):
        raise ServingError(
            f"{release.folder} has the sha256 {release.sha256}, expected {given.sha256}; serve the release that has "
            "it, or name its new digest"
        )
    serve(release, options, host=given.host, port=given.port)


if __name__ == "__main__":
    settle()
    sys.exit(main())
