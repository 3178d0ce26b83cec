"""`python -m lrm.serving.releases.fetch`: take a release out of a depot before serving it, or put one in."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrm.errors import LrmError
from lrm.serving.releases.store import CURRENT, Wanted, champion, fetch, push

EPILOG = """examples:
  python -m lrm.serving.releases.fetch --push state/serving/complete-journey/current --depot gs://models/serving
      put the release that was rolled out last into a bucket; prints its name and digest
  python -m lrm.serving.releases.fetch --depot gs://models/serving --name complete-journey --to /models/release
      fetch the release that was pushed last
  python -m lrm.serving.releases.fetch --depot /depot --name shop --release 7-915dd6ab --sha256 3c8f... --to out
      fetch that one, and nothing else under its name
  python -m lrm.serving.releases.fetch --depot /depot --name complete-journey --registry http://mlflow:5000 --to out
      fetch the champion's latest release, its bundle the one that the registry holds
"""


def main(argv: list[str] | None = None) -> int:
    """Fetch or push; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lrm.serving.releases.fetch",
        description="Take a release out of a depot, with every digest checked; or put one in.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--depot", required=True, help="where releases wait: a folder, or gs://BUCKET[/PREFIX]")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", type=Path, metavar="FOLDER", help="fetch a release to this folder, which it replaces")
    what.add_argument("--push", type=Path, metavar="RELEASE", help="put this release folder into the depot")
    parser.add_argument("--name", default="", help="the registered model to fetch")
    parser.add_argument("--release", default=CURRENT, help="a release, a version or %(default)s (default: %(default)s)")
    parser.add_argument(
        "--sha256",
        default="",
        help="the digest that the release must have, as --push printed it; without one it is unpinned",
    )
    parser.add_argument("--registry", default="", help="address of an MLflow server: fetch what it calls champion")
    asked = parser.parse_args(argv)
    if asked.to and not asked.name:
        parser.error("--to needs --name: which model to fetch")
    if asked.registry and asked.release != CURRENT:
        parser.error("--registry says which release to fetch; leave --release out")
    try:
        if asked.push:
            release, sha256 = push(asked.push, asked.depot)
            print(f"pushed {release} to {asked.depot}, sha256 {sha256}")
        else:
            _fetch(asked)
    except LrmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _fetch(asked: argparse.Namespace) -> None:
    wanted = Wanted(asked.name, asked.release, asked.sha256)
    if asked.registry:
        version, content = champion(asked.registry, asked.name)
        wanted = wanted._replace(pointer=version, content_sha256=content)
    release = fetch(asked.depot, wanted, asked.to)
    what = f"{release.name} version {release.version}, data as of {release.as_of:%Y-%m-%d %H:%M} UTC"
    if asked.sha256:
        print(f"fetched {what}, verified: its sha256 is the one named, {release.sha256}")
        return
    bundle = "; its bundle is the registered one" if asked.registry else ""
    print(f"fetched {what}, unpinned: every file is as the depot lists it{bundle}; sha256 {release.sha256}")


if __name__ == "__main__":
    sys.exit(main())
