"""Which registry a command is told, before anything runs."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from local.commands.model_options import check_ledger, check_registry
from lrm.errors import RegistryError


class Closed(http.server.BaseHTTPRequestHandler):
    """Answers nobody without a key."""

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Closed) as held:
        thread = threading.Thread(target=held.serve_forever)
        thread.start()
        yield f"127.0.0.1:{held.server_port}"
        held.shutdown()
        thread.join()


def test_a_server_that_wants_a_key_is_there(server):
    check_registry(f"http://{server}")
    check_registry(f"http://{server}/mlflow")


@pytest.mark.parametrize(
    "address", ["http://me:secret@127.0.0.1:1", "https://secret@host", "http://me:sec@ret/secret@host/x"]
)
def test_a_password_belongs_in_the_environment_and_is_not_repeated(address):
    with pytest.raises(RegistryError, match=r"named with a user or a password.* MLFLOW_TRACKING_PASSWORD") as told:
        check_registry(address, from_here=False)
    assert "ret" not in str(told.value).split("which would")[0]


def test_an_address_of_another_kind_is_told_without_its_password():
    with pytest.raises(RegistryError, match=r"registry 'postgresql://\*\*\*@host/mlflow' is neither"):
        check_registry("postgresql://me:secret@host/mlflow")


@pytest.mark.parametrize("place", ["s3://bucket/ledger", "file:///tmp/ledger", "gs://", "gs:///path", "GS://bucket"])
def test_a_ledger_is_a_folder_or_a_bucket_of_google_cloud_storage(place):
    with pytest.raises(RegistryError, match=f"ledger '{place}' is neither a folder nor gs://BUCKET/PATH"):
        check_ledger(place)


@pytest.mark.parametrize("place", ["", "ledger", "/srv/ledger", "a: b//c", "gs://bucket", "gs://bucket/path"])
def test_a_ledger_that_can_be_is_taken(place):
    check_ledger(place)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "http://[::1", "http://127.0.0.1:1/\N{LATIN SMALL LETTER O WITH DIAERESIS}"]
)
def test_an_address_that_nobody_answers_at_is_told(address):
    with pytest.raises(RegistryError, match="no registry answers at http://") as told:
        check_registry(address)
    assert "urlopen" not in str(told.value)
    check_registry(address, from_here=False)
