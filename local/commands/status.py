"""`python pipeline.py status`: whether what serves is what should, from the ledger down to the running servers."""

from __future__ import annotations

import argparse
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local.commands.model_options import add_options, registry_of
from lrm.errors import LrmError

HELP = "compare what serves with what should; exit code 1 where they differ"
DESCRIPTION = """Compare the ledger, the alias `champion`, the champion's bundle, the link that servers watch, the files
of the release that it names, and running servers. Exit code 0: they agree; 1: they differ, each difference with what to
do about it. Nothing is changed. While a run or a command is at work, they differ for a moment."""
ANSWERS_WITHIN_S = 10.0
Json = dict[str, Any]


def add(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("status", help=HELP, description=DESCRIPTION)
    parser.add_argument(
        "--server", action="append", default=[], metavar="URL", help="a running server to ask; may be given repeatedly"
    )
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="the key that those servers ask for")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    add_options(parser)
    parser.set_defaults(execute=execute)


def execute(asked: argparse.Namespace) -> int:
    """Compare and print; 1 where something differs."""
    from lrm.registry.run import show

    registry = registry_of(asked)
    held = show(registry, asked.name)
    key = asked.api_key_file.read_text().strip() if asked.api_key_file else ""
    seen = look(registry, held, asked.state, {url: ask(url, key) for url in asked.server})
    print(json.dumps(seen, indent=1) if asked.json else "\n".join(told(seen)))
    return 1 if seen["differences"] else 0


def look(registry: str, held: Json, state: Path, servers: dict[str, Json]) -> Json:
    """What should serve, what does, and where they differ.

    Args:
        registry: address of the model registry.
        held: what `lrm.registry.run.show` returns.
        state: the folder that holds `serving/`.
        servers: what `ask` returned, by address.

    Returns:
        `name`, `champion`, `ledger` (the version that its last move put in service), `link` (the release that servers
        are told to serve), `served` (its version), `servers`, and `differences`: [{`what`, `do`}].
    """
    from lrm.serving.release import CURRENT, root_of, served_version

    root = root_of(state, held["name"])
    link = root / CURRENT
    seen = {
        "name": held["name"],
        "champion": held["champion"],
        "ledger": held["moves"][-1]["version"] if held["moves"] else "",
        "link": link.resolve().name if link.exists() else "",
        "served": served_version(root),
        "servers": servers,
    }
    found = [*_of_ledger(seen, held), *_of_release(seen, registry, link), *_of_servers(seen)]
    return seen | {"differences": [{"what": what, "do": do} for what, do in found]}


def ask(url: str, key: str = "") -> Json:
    """What a running server says of the model that answers; `error` where it says nothing."""
    from lrm.serving.http.middleware import API_KEY

    request = urllib.request.Request(f"{url.rstrip('/')}/v1/model", headers={API_KEY.decode(): key} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as reply:
            facts: Json = json.load(reply)
            return {fact: facts[fact] for fact in ("name", "version", "release", "refused")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def told(seen: Json) -> list[str]:
    """What was seen, in lines."""
    servers = [
        f"  {url}: {facts.get('error') or 'version {version} ({release})'.format(**facts)}"
        for url, facts in seen["servers"].items()
    ]
    lines = [
        f"{seen['name']}: version {seen['champion'] or '(none)'} is the champion",
        f"  ledger: version {seen['ledger'] or '(none)'}",
        f"  link that servers watch: version {seen['served'] or '(none)'} ({seen['link'] or 'no release'})",
        *(servers or ["  servers: none asked; --server URL asks one"]),
    ]
    for one in seen["differences"]:
        lines += ["", f"differs: {one['what']}", f"  do: {one['do']}"]
    return [*lines, "", "all agree" if not seen["differences"] else f"{len(seen['differences'])} differ"]


def _of_ledger(seen: Json, held: Json) -> Iterator[tuple[str, str]]:
    if move := held["interrupted"]:
        moved = f"{move['previous'] or 'none'} -> {move['version']}, by {move['actor']}"
        yield (
            f"a {move['action']} ({moved}) was interrupted",
            "run the same command again; any other command that moves a champion, or a run, finishes it too",
        )
    elif seen["ledger"] != seen["champion"]:
        yield (
            f"the alias `champion` names version {seen['champion'] or '(none)'}, the ledger's last move put version "
            f"{seen['ledger'] or '(none)'} in service: somebody moved the alias without it",
            "set the alias back to the ledger's version, then move it with `approve` or `rollback`",
        )


def _of_release(seen: Json, registry: str, link: Path) -> Iterator[tuple[str, str]]:
    """Champion and release, file by file."""
    from lrm.registry.bundle import verify
    from lrm.registry.run import check_version
    from lrm.serving.release import BUNDLE, read_release

    champion, content = seen["champion"], ""
    if champion:
        try:
            content = check_version(registry, seen["name"], champion)
        except LrmError as error:
            yield f"the champion in the registry: {error}", "restore it as the message says, or roll back"
    if seen["served"] != champion:
        follow = f"python pipeline.py approve {champion} --name {seen['name']} --reason 'lead servers to it'"
        yield (
            f"the link names version {seen['served'] or '(none)'}, the champion is version {champion or '(none)'}",
            f"{follow} (the champion stays, the link follows), or `make run`" if champion else f"remove {link}",
        )
    if not seen["link"]:
        return
    try:
        release = read_release(link.resolve())
        own = verify(release.folder / BUNDLE)["content_sha256"]
    except LrmError as error:
        yield f"the release that the link names: {error}", "`make run` makes a new release of the champion"
        return
    if content and seen["served"] == champion and own != content:
        yield (
            f"the release {seen['link']} holds a bundle with the content {own}, the registry's version {champion} has "
            f"{content}",
            "`make run` makes a new release of the champion; ask who changed this one",
        )


def _of_servers(seen: Json) -> Iterator[tuple[str, str]]:
    for url, facts in seen["servers"].items():
        if error := facts.get("error"):
            yield f"the server {url} does not say what it serves: {error}", "see that it runs, and its --api-key-file"
        elif facts["name"] != seen["name"]:
            yield f"the server {url} serves the model {facts['name']}, not {seen['name']}", "name another server"
        elif (facts["version"], facts["release"]) != (seen["served"], seen["link"]):
            refused = f"; it refused {facts['refused']}" if facts["refused"] else ""
            yield (
                f"the server {url} serves version {facts['version']} ({facts['release']}), the link names version "
                f"{seen['served'] or '(none)'} ({seen['link'] or 'no release'}){refused}",
                "start it again; one that is started with --follow follows the link by itself within seconds",
            )
