"""The three kinds of online store, real ones, for tests that must hold on each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests import services

KINDS = ("sqlite", "redis", "postgres")
FEATURE_STORE = """\
project: {project}
provider: local
registry: state/registry.db
online_store: {online_store}
offline_store: {{type: duckdb}}
entity_key_serialization_version: 3
"""


class Place(NamedTuple):
    """An online store that answers."""

    kind: str
    address: str
    """"" of a local one."""

    @property
    def online_store(self) -> str:
        """What a `feature_store.yaml` says of it."""
        found = urlsplit(self.address)
        where = f"host: {found.hostname}, port: {found.port}, database: postgres, user: postgres, password: none"
        return {
            "sqlite": "{type: sqlite, path: online.db}",
            "redis": f'{{type: redis, connection_string: "{found.hostname}:{found.port}"}}',
            "postgres": f"{{type: postgres, {where}, sslmode: disable}}",
        }[self.kind]

    def give(self, feature_repo: Path) -> str:
        """Let a feature repo keep its values here, in a project of its own, whose name is returned."""
        project = f"test_{secrets.token_hex(4)}"
        text = FEATURE_STORE.format(project=project, online_store=self.online_store)
        (feature_repo / "feature_store.yaml").write_text(text)
        return project

    def names(self, part: str) -> list[str]:
        """The Redis keys, or the PostgreSQL tables, whose name has that part."""
        if self.kind == "redis":
            from redis import Redis

            with Redis.from_url(self.address) as client:
                return [str(key) for key in client.keys(f"*{part}*")]
        return [name for (name,) in self.sql("SELECT tablename FROM pg_tables") if part in name]

    def sql(self, text: str) -> list[tuple[str, ...]]:
        """Ask PostgreSQL."""
        import psycopg

        with psycopg.connect(self.address) as connection:
            asked = connection.execute(text)
            return asked.fetchall() if asked.description else []


@contextmanager
def place(kind: str) -> Iterator[Place]:
    """An online store of one kind; the test skips where it cannot be had."""
    if kind == "sqlite":
        yield Place(kind, "")
        return
    if kind == "postgres" and find_spec("psycopg") is None:
        services.skip_or_fail(
            "there is no psycopg, by which Feast reaches PostgreSQL; pip install 'psycopg[binary,pool]'"
        )
    with services.service(kind) as address:
        yield Place(kind, address)
