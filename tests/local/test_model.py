"""Which registry a command is told, before anything runs."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from local.commands.model import check_registry
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
    check_registry(f"http://me:secret@{server}/mlflow")


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@127.0.0.1:1", "http://[::1", "http://127.0.0.1:1/\N{LATIN SMALL LETTER O WITH DIAERESIS}"],
)
def test_an_address_that_nobody_answers_at_is_told_without_its_password(address):
    with pytest.raises(RegistryError, match="no registry answers at http://") as told:
        check_registry(address)
    assert "secret" not in str(told.value)
    assert "urlopen" not in str(told.value)
    check_registry(address, from_here=False)
