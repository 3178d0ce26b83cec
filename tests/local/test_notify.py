"""Whoever is to be told of a run is handed its summary; one that fails is said, and changes nothing."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from local.notify import check, notify, shown, shown_words
from lrm.errors import LrmError
from pipeline import main

SUMMARY = {"run_id": "7", "status": "failed", "verdict": None}


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "runs/7"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return folder


@pytest.fixture
def hook():
    """A web hook that keeps what it is sent, and answers 500 below /broken."""
    taken = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append((self.path, self.headers["content-type"], json.loads(body)))
            self.send_response(500 if self.path.startswith("/broken") else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def said_by(run_dir, *targets, **how):
    said = []
    notify(run_dir, targets, say=said.append, **how)
    return said


def test_a_command_reads_the_summary_in_the_runs_folder_without_a_shell(run_dir):
    assert said_by(run_dir, "cp /dev/stdin 'a copy; $HOME'", 'sh -c "echo $LRM_RUN_DIR > where"') == []
    assert json.loads((run_dir / "a copy; $HOME").read_text()) == SUMMARY
    assert (run_dir / "where").read_text() == f"{run_dir}\n"


def test_an_address_is_posted_the_summary_and_one_on_this_machine_past_any_proxy(run_dir, hook, monkeypatch):
    address, taken = hook
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert said_by(run_dir, f"{address}/runs?key=sesame") == []
    assert taken == [("/runs?key=sesame", "application/json", SUMMARY)]


def test_each_is_told_though_others_fail_and_no_secret_of_an_address_is_said(run_dir, hook):
    address, taken = hook
    broken = f"{address}/broken/sesame?key=sesame"
    said = said_by(run_dir, "false", "nosuchprogram sesame", broken, "http://user:sesame@127.0.0.1:9/sesame", address)
    assert said[:3] == [
        "Warning: false was not notified: it ended with status 1",
        "Warning: nosuchprogram was not notified: No such file or directory",
        "Warning: http://127.0.0.1 was not notified: it answered 500",
    ]
    assert said[3].startswith("Warning: http://127.0.0.1 was not notified: ")
    assert "sesame" not in " ".join(said)
    assert len(taken) == 2


def test_a_command_that_hangs_is_ended_with_all_that_it_started(run_dir):
    (said,) = said_by(run_dir, "sh -c 'sleep 60 & echo $! > pid; wait'", timeout_s=1.0)
    assert said == "Warning: sh was not notified: it took too long"
    pid = int((run_dir / "pid").read_text())
    while (state := state_of(pid)) not in ("", "Z"):
        assert state != "T"
        time.sleep(0.05)


def state_of(pid):
    """The state of a process, "" where it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_command_that_reads_nothing_is_no_fault(run_dir):
    (run_dir / "summary.json").write_text(json.dumps(SUMMARY | {"reasons": ["long"] * 100_000}))
    assert said_by(run_dir, "true") == []


@pytest.mark.parametrize(
    ("target", "message"),
    [("", "--notify is empty"), ("mail 'ops", "is no command .No closing quotation."), ("https:///x", "names no host")],
)
def test_a_target_that_can_be_none_is_refused_before_anything_runs(target, message, tmp_path, capsys):
    with pytest.raises(LrmError, match=message):
        check(target)
    assert main(["run", "--data", str(tmp_path / "nowhere"), "--runs", str(tmp_path / "runs"), "--notify", target]) == 1
    assert "--notify" in capsys.readouterr().err


def test_a_target_is_shown_by_its_program_or_host_alone():
    assert shown("/opt/tell --token=sesame") == "/opt/tell"
    assert shown("https://hooks.example.org/services/sesame") == "https://hooks.example.org"


@pytest.mark.parametrize("option", ["--notify", "--notif", "--not"])
def test_what_is_kept_of_a_command_line_holds_no_more_of_a_target(option):
    words = ["pipeline.py", "run", option, "https://hooks.example.org/sesame", "--seed", "1", f"{option}=tell sesame"]
    kept = ["pipeline.py", "run", option, "https://hooks.example.org", "--seed", "1", f"{option}=tell"]
    assert shown_words(words) == kept
    assert shown_words(["pipeline.py", "run", "--n", "x=y"]) == ["pipeline.py", "run", "--n", "x=y"]
