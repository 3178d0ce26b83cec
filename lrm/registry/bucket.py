"""The registry's edge to Google Cloud Storage: a small object that only who has read its last generation may replace.

Depots (`lrm.serving.releases.store`) and copies of runs (`local.upload`) have edges of their own.

`STORAGE_EMULATOR_HOST` leads the client to an emulator, without credentials.
"""

from __future__ import annotations

import os
from typing import Any

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from lrm.errors import RegistryError

SCHEME = "gs://"
EMULATOR = "STORAGE_EMULATOR_HOST"
PATIENCE_SECONDS = 15.0
"""How long a call is tried again, ever more slowly, after faults of the network or the service."""
FAULTS = (GoogleAPIError, GoogleAuthError, RequestException)


def read(address: str) -> tuple[bytes, int]:
    """An object's content and generation; nothing and 0 where there is no such object.

    Args:
        address: `gs://BUCKET/PATH`.

    Raises:
        RegistryError: the bucket cannot be reached or read.
    """
    blob = _blob(address)
    try:
        content: bytes = blob.download_as_bytes(retry=_retry())
    except NotFound:
        return b"", 0
    except FAULTS as error:
        raise _fault("read", address, error) from error
    return content, int(blob.generation)


def replace(address: str, content: bytes, *, generation: int) -> int:
    """Write an object, unless it is no longer of that generation.

    Returns:
        The new generation; 0 where another writer came first.

    Raises:
        RegistryError: the bucket cannot be reached or written. The object then holds the old or the new content, whole.
    """
    blob = _blob(address)
    try:
        blob.upload_from_string(content, "application/jsonl", if_generation_match=generation, retry=_retry())
    except PreconditionFailed:
        found, newest = read(address)
        return newest if found == content else 0  # a second try is refused where the answer to the first got lost
    except FAULTS as error:
        raise _fault("write", address, error) from error
    return int(blob.generation)


def _blob(address: str) -> Any:
    bucket, _, path = address.removeprefix(SCHEME).partition("/")
    try:
        nobody: Any = AnonymousCredentials
        client = storage.Client("emulated", nobody()) if os.environ.get(EMULATOR) else storage.Client()
    except FAULTS as error:
        raise _fault("open", address, error) from error
    return client.bucket(bucket).blob(path)


def _retry() -> Any:
    return DEFAULT_RETRY.with_timeout(PATIENCE_SECONDS)


def _fault(what: str, address: str, error: Exception) -> RegistryError:
    seen = str(error).splitlines()[0][:300]
    return RegistryError(
        f"cannot {what} {address}: {type(error).__name__}: {seen}; see that the bucket exists, that you may {what} it "
        "and that the network reaches it, then run the same command again: it goes on where this one stopped"
    )
