"""A run's report, manifest, summary and registered bundle, copied to a bucket: `gs://BUCKET/PREFIX/<run id>/`.

An object is written once and never replaced. An upload that was interrupted goes on when it is started again: what is
there already is compared by its checksum and left alone. `upload.json` names every file and is written last, so a copy
that has one is whole. `STORAGE_EMULATOR_HOST` leads to an emulator, without credentials.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import run_layout
from lrm.errors import UploadError
from lrm.manifest import RUN_MANIFEST
from lrm.storage import sha256_of

SCHEME = "gs://"
WHOLE = "upload.json"
FILES = ("report.html", "summary.json", RUN_MANIFEST)
PIECE_BYTES = 8 * 1024 * 1024
"""What is sent at a time, and sent again after a fault: a multiple of 256 KiB."""
PATIENCE_SECONDS = 60.0
"""How long a call is tried again, ever more slowly, after faults of the network or the service."""


def check_address(address: str) -> str:
    """The address without a slash at its end.

    Raises:
        UploadError: it is not `gs://BUCKET` or `gs://BUCKET/PREFIX`.
    """
    bucket = address.removeprefix(SCHEME).split("/")[0]
    if not address.startswith(SCHEME) or not bucket:
        raise UploadError(f"{address!r} is no address of a bucket; write gs://BUCKET or gs://BUCKET/PREFIX")
    return address.rstrip("/")


def files_of(run_dir: Path) -> dict[str, Path]:
    """What is copied of a run, by name there; a run that registered nothing has no bundle."""
    found = {name: run_dir / name for name in FILES if (run_dir / name).is_file()}
    for bundle in run_layout.artifacts_of(run_dir).glob("*/register-model/registered/bundle"):
        found |= {
            f"bundle/{path.relative_to(bundle).as_posix()}": path
            for path in sorted(bundle.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
    return found


def upload(
    run_dir: Path,
    address: str,
    *,
    piece_bytes: int = PIECE_BYTES,
    patience_seconds: float = PATIENCE_SECONDS,
    say: Callable[[str], None] = print,
) -> str:
    """Copy a run to a bucket; again, where it was interrupted.

    Args:
        run_dir: the run's folder.
        address: `gs://BUCKET` or `gs://BUCKET/PREFIX`.
        piece_bytes: what is sent at a time.
        patience_seconds: how long faults are borne.
        say: told what was done.

    Returns:
        The address of the copy.

    Raises:
        UploadError: the bucket cannot be reached or written, or holds something else under a name of this run.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    place = f"{check_address(address)}/{run_dir.name}"
    bucket_name, _, prefix = place.removeprefix(SCHEME).partition("/")
    files = files_of(run_dir)
    try:
        bucket = _client().bucket(bucket_name)
        sent = [
            name
            for name, path in files.items()
            if _send(bucket, f"{prefix}/{name}", path, piece_bytes, patience_seconds)
        ]
        _close(bucket, prefix, run_dir, files, patience_seconds)
    except (GoogleAPIError, GoogleAuthError, RequestException, OSError) as error:
        seen = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
        raise UploadError(
            f"the copy to {place} is not whole: {seen}; nothing here is lost: see that the bucket exists, may be "
            f"written and is reached, then go on with `python pipeline.py upload {run_dir.name} {address}`"
        ) from error
    say(f"Copy:    {place} ({len(sent)} files sent, {len(files) - len(sent)} were there)")
    return place


def _close(bucket: Any, prefix: str, run_dir: Path, files: dict[str, Path], patience_seconds: float) -> None:
    """Write the list of all files, which says that the copy is whole."""
    listed = {name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for name, path in files.items()}
    text = json.dumps({"run_id": run_dir.name, "files": listed}, indent=1) + "\n"
    blob, seen = bucket.blob(f"{prefix}/{WHOLE}"), bucket.get_blob(f"{prefix}/{WHOLE}")
    if seen is None:
        blob.upload_from_string(
            text, "application/json", if_generation_match=0, checksum="crc32c", retry=_retry(patience_seconds)
        )
    elif seen.crc32c != _crc32c(text.encode()):
        raise _other(bucket, f"{prefix}/{WHOLE}")


def _send(bucket: Any, name: str, path: Path, piece_bytes: int, patience_seconds: float) -> bool:
    """Write one object unless it is there; whether it was written.

    Raises:
        UploadError: another content is there.
    """
    from google.api_core.exceptions import PreconditionFailed

    retry = _retry(patience_seconds)
    seen = bucket.get_blob(name, retry=retry)
    if seen is None:
        blob = bucket.blob(name, chunk_size=piece_bytes)
        try:
            blob.upload_from_filename(str(path), if_generation_match=0, checksum="crc32c", retry=retry)
            return True
        except PreconditionFailed:
            seen = bucket.get_blob(name, retry=retry)  # another upload, or a try whose answer got lost
    if seen is None or seen.crc32c != _crc32c(path.read_bytes()):
        raise _other(bucket, name)
    return False


def _other(bucket: Any, name: str) -> UploadError:
    return UploadError(
        f"{SCHEME}{bucket.name}/{name} is there with another content, and is never replaced; name another prefix"
    )


def _client() -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    nobody: Any = AnonymousCredentials
    return storage.Client("emulated", nobody()) if os.environ.get("STORAGE_EMULATOR_HOST") else storage.Client()


def _retry(patience_seconds: float) -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(patience_seconds)


def _crc32c(content: bytes) -> str:
    """As the bucket writes it."""
    import google_crc32c

    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
