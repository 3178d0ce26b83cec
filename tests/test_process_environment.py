"""A process goes on among proxies, strict warnings and closed streams."""

import http.server
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrm.process_environment import lenient, without_proxy

PROJECT = Path(__file__).resolve().parent.parent
DEAD = "http://127.0.0.1:1"
PROXIES = {"http_proxy": DEAD, "https_proxy": DEAD, "HTTP_PROXY": DEAD, "all_proxy": DEAD}
CLIENTS = {
    "urllib": "import urllib.request; urllib.request.urlopen(at, timeout=5)",
    "requests": "import requests; requests.get(at, timeout=5)",
}
ONCE_SETTLED = "import sys; from lrm.process_environment import settle; settle(); at = sys.argv[1]; "


class Here(http.server.BaseHTTPRequestHandler):
    """Answers."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Here) as held:
        thread = threading.Thread(target=held.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{held.server_port}"
        held.shutdown()
        thread.join()


def settled(program: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    asked = [sys.executable, "-c", ONCE_SETTLED + program, *arguments]
    return subprocess.run(asked, cwd=PROJECT, env=given | more, capture_output=True, text=True)


@pytest.mark.parametrize("client", CLIENTS)
def test_no_client_asks_a_proxy_for_a_server_of_this_machine(client, server):
    assert settled(CLIENTS[client], server, **PROXIES).returncode == 0
    assert settled(CLIENTS[client], server, **PROXIES, no_proxy="example.com").returncode == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_a_proxy_is_asked_for_everything_else(client):
    assert settled(CLIENTS[client], "http://example.invalid", **PROXIES, no_proxy="example.com").returncode == 1


def test_what_was_said_of_proxies_stays():
    both = {"no_proxy": "example.com,10.0.0.1,localhost,127.0.0.1,::1"}
    assert without_proxy({"https_proxy": DEAD, "NO_PROXY": "example.com, 10.0.0.1"}) == both | {
        "NO_PROXY": both["no_proxy"]
    }
    assert without_proxy({"http_proxy": DEAD, "no_proxy": "*"}) == {}
    assert without_proxy({"no_proxy": "example.com"}) == {}


@pytest.mark.parametrize(
    ("filters", "made"),
    [
        ("error", "default"),
        ("e", "default"),
        ("ignore,error::DeprecationWarning:x", "ignore,default::DeprecationWarning:x"),
        ("ignore", "ignore"),
        ("default::ImportWarning", "default::ImportWarning"),
        ("", ""),
    ],
)
def test_a_warning_is_no_error_and_every_other_filter_stays(filters, made):
    assert lenient(filters) == made


@pytest.mark.parametrize("strict", [{"PYTHONWARNINGS": "error"}, {"PYTHONWARNINGS": "error::DeprecationWarning"}])
def test_neither_this_process_nor_one_that_it_starts_ends_by_a_librarys_warning(strict):
    warn = "import warnings; warnings.warn('old', DeprecationWarning)"
    program = f"{warn}; import subprocess; subprocess.run([sys.executable, '-c', at], check=True)"
    done = settled(program, warn, **strict)
    assert done.returncode == 0, done.stderr
    assert "old" in done.stderr


def test_a_listing_that_is_cut_short_ends_quietly_and_well():
    asked = f"set -o pipefail; {sys.executable} pipeline.py steps | true"
    done = subprocess.run(["bash", "-c", asked], cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_whose_output_is_closed_from_the_start_ends_as_it_would(tmp_path):
    asked = f"{sys.executable} pipeline.py compile --output {tmp_path}/p.yaml >&- 2>&- <&-"
    done = subprocess.run(["bash", "-c", asked], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0
    assert (tmp_path / "p.yaml").read_text().startswith("# PIPELINE DEFINITION")


def test_a_disk_that_takes_no_output_is_still_an_error():
    asked = f"{sys.executable} pipeline.py steps > /dev/full"
    done = subprocess.run(["bash", "-c", asked], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


def test_make_takes_a_data_folder_with_a_space_and_names_its_model(tmp_path):
    data = tmp_path / "ada's my shop"
    data.mkdir()
    (data / "dataset.json").write_text('{"name": "shop"}')
    among = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    for command, told in {"serve": '--name "shop"', "run": f'--data "{data}"'}.items():
        asked = ["make", "--dry-run", command, f"DATA={data}"]
        done = subprocess.run(asked, cwd=PROJECT, env=among, capture_output=True, text=True)
        assert told in done.stdout


def test_the_tests_themselves_keep_warnings_strict():
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
