"""`status`: what serves beside what should, and each difference in words."""

import json
import shutil
from datetime import UTC, datetime

import pytest

from lrm.registry import backend
from lrm.registry.address import path_of
from lrm.serving.release import ITEMS, Release, root_of, write_release
from pipeline import main
from tests.registry.conftest import NAME


@pytest.fixture
def state(registry, register, promote):
    """Version 2 in service, version 1 before it; both have whole releases."""
    state = path_of(registry).parent
    for weights in "ab":
        version = promote(register(weights), run_id=weights)["champion"]
        folder = root_of(state, NAME) / f"{version}-abc"
        shutil.copytree(backend.bundle_of(backend.version(store(registry), version)), folder / "bundle")
        (folder / ITEMS).touch()
        write_release(Release(folder, NAME, version, datetime(2026, 1, 1, tzinfo=UTC), {"user_id": "int64"}))
    serve(state, "2")
    return state


def store(registry):
    return backend.connect(registry, NAME)


def serve(state, version):
    link = root_of(state, NAME) / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"{version}-abc")


def status(state, capsys, *options):
    """The exit code and the differences."""
    capsys.readouterr()
    code = main(["status", "--state", str(state), "--json", *options])
    seen = json.loads(capsys.readouterr().out)
    return code, [one["what"] for one in seen["differences"]]


def test_what_agrees_is_status_zero_and_says_so(state, capsys):
    assert status(state, capsys) == (0, [])
    assert main(["status", "--state", str(state)]) == 0
    printed = capsys.readouterr().out
    assert f"{NAME}: version 2 is the champion" in printed
    assert "link that servers watch: version 2 (2-abc)" in printed
    assert printed.endswith("all agree\n")


def test_a_link_that_names_another_version_is_told_with_what_leads_servers_back(state, capsys):
    serve(state, "1")
    assert status(state, capsys) == (1, ["the link names version 1, the champion is version 2"])
    assert main(["status", "--state", str(state)]) == 1
    assert f"do: python pipeline.py approve 2 --name {NAME} --reason" in capsys.readouterr().out
    assert main(["approve", "2", "--state", str(state), "--reason", "lead servers to it"]) == 0
    assert status(state, capsys) == (0, [])


def test_no_release_at_all_is_a_difference(state, capsys):
    (root_of(state, NAME) / "current").unlink()
    assert status(state, capsys) == (1, ["the link names version (none), the champion is version 2"])


def test_an_alias_that_was_moved_without_the_ledger_is_told(registry, state, capsys):
    backend.move_alias(store(registry), backend.CHAMPION, "1")
    serve(state, "1")
    code, (what,) = status(state, capsys)
    assert code == 1
    assert what.startswith("the alias `champion` names version 1, the ledger's last move put version 2 in service")


@pytest.mark.parametrize("place", ["registry", "release"])
def test_a_file_that_was_changed_is_told_wherever_it_lies(registry, state, capsys, place):
    bundles = {
        "registry": backend.bundle_of(backend.version(store(registry), "2")),
        "release": root_of(state, NAME) / "2-abc/bundle",
    }
    (bundles[place] / "weights.safetensors").write_text("evil")
    code, (what,) = status(state, capsys)
    assert code == 1
    assert "weights.safetensors was changed" in what
    assert what.startswith("the champion in the registry" if place == "registry" else "the release that the link names")


def test_an_edited_tag_is_told(registry, state, capsys):
    store(registry).client.set_model_version_tag(NAME, "2", "verdict", "keep")
    code, (what,) = status(state, capsys)
    assert (code, "evaluation says 'promote', and the registry's tag `verdict` 'keep'" in what) == (1, True)


def test_a_release_with_another_bundle_of_that_version_is_told(state, capsys):
    root = root_of(state, NAME)
    shutil.rmtree(root / "2-abc/bundle")
    shutil.copytree(root / "1-abc/bundle", root / "2-abc/bundle")
    write_release(Release(root / "2-abc", NAME, "2", datetime(2026, 1, 1, tzinfo=UTC), {"user_id": "int64"}))
    code, (what,) = status(state, capsys)
    assert (code, "the release 2-abc holds a bundle with the content" in what) == (1, True)


def test_a_server_that_does_not_answer_is_a_difference(state, capsys):
    code, (what,) = status(state, capsys, "--server", "http://127.0.0.1:9")
    assert (code, what.startswith("the server http://127.0.0.1:9 does not say what it serves: URLError")) == (1, True)


def test_the_history_says_what_serves_beside_what_should(state, capsys):
    main(["history", "--state", str(state)])
    assert "servers are told to serve it: version 2" in capsys.readouterr().out
    serve(state, "1")
    main(["history", "--state", str(state)])
    assert (
        "servers are told to serve version 1, not the champion: `python pipeline.py status`" in capsys.readouterr().out
    )


def test_a_model_of_which_nothing_was_promoted_agrees_with_no_release(registry, register, capsys):
    register("a", verdict="keep")
    assert status(path_of(registry).parent, capsys) == (0, [])
