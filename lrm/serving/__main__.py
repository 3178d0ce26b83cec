"""`python -m lrm.serving`: answer requests with one released version."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lrm.errors import LrmError, ServingError

EPILOG = """examples:
  python -m lrm.serving
      look up the champion, once, and serve its latest release from state/serving/<name>/; after a rollback, start
      the server again to serve the version that is champion now
  python -m lrm.serving --registry sqlite:///state/mlflow.db --name complete-journey --port 8001
      the same where the registry holds several models, and on another port
  python -m lrm.serving --bundle state/serving/complete-journey/current
      serve that release; the registry is not asked, and need not be there
  curl -s localhost:8000/v1/recommend -H 'content-type: application/json' -d '{"user_id": 20, "k": 5}'

routes:
  POST /v1/recommend  the k best items: {user_id, k, time, context, candidates, exclude_seen}; only user_id is needed
  POST /v1/rank       a probability for each of the candidates: the same fields
  GET  /v1/model      name, version, and the fields that `context` and `candidates` may carry
  GET  /healthz /readyz /metrics /docs

A request that names no time is asked at the present instant, or, where the data ends more than a day before the server
starts, at the instant at which it ends: old data is a replayed world.
"""


def main(argv: list[str] | None = None) -> int:
    """Serve until stopped; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lrm.serving",
        description="Answer recommendation requests over HTTP with one released version.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, help="serve this release folder, as roll_out writes them")
    parser.add_argument(
        "--registry",
        default="sqlite:///state/mlflow.db",
        help="without --bundle: serve the champion of this registry (default: %(default)s)",
    )
    parser.add_argument("--name", default="", help="the registered model; needed only where there are several")
    parser.add_argument("--state", type=Path, default=Path("state"), help="holds serving/ (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    given = parser.parse_args(argv)
    try:
        if given.bundle is None:
            folder = champion_folder(given.registry, given.name, given.state)
            again = ["--bundle", str(folder), "--host", given.host, "--port", str(given.port)]
            # A fresh process: the registry's client is not needed from here on, and weighs more than the model.
            os.execv(sys.executable, [sys.executable, "-m", "lrm.serving", *again])
        _serve(given.bundle, given.host, given.port)
    except LrmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def champion_folder(registry: str, name: str, state: Path) -> Path:
    """The latest release of the champion.

    Raises:
        RegistryError: there is no such registry or model.
        ServingError: nothing was promoted yet, or the champion has no release: it was not rolled out, or so long ago
            that its release was removed.
    """
    from lrm.registry.run import show
    from lrm.serving.release import latest_releases, root_of

    held = show(registry, name)
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


def _serve(folder: Path, host: str, port: int) -> None:
    from lrm.serving.release import read_release
    from lrm.serving.server import serve

    release = read_release(folder.resolve())
    print(
        f"loading {release.name} version {release.version}, data as of {release.as_of:%Y-%m-%d %H:%M} UTC", flush=True
    )
    serve(release, host=host, port=port)


if __name__ == "__main__":
    sys.exit(main())
