"""`status` asks real servers what they serve."""

from local.commands.status import ask, look
from lrm.registry.run import show
from lrm.serving.staging.process import running
from pipeline import main
from tests.serving.conftest import NAME


def test_a_running_server_is_compared_with_the_link(world, tmp_path, capsys):
    key = tmp_path / "key"
    key.write_text("k" * 40)
    events = ("--events", str(tmp_path / "events"))
    with running(world.release.folder, "--api-key-file", str(key), *events, log=tmp_path / "server.log") as address:
        told = ["status", "--name", NAME, "--state", str(world.state), "--server", address]
        assert main([*told, "--api-key-file", str(key)]) == 0
        assert f"{address}: version 1 ({world.release.folder.name})" in capsys.readouterr().out
        assert main(told) == 1
        assert f"the server {address} does not say what it serves: HTTPError" in capsys.readouterr().out
        facts = ask(address, "k" * 40)
    older = {address: facts | {"release": "1-older", "refused": "2-new"}}
    (one,) = look(world.registry, show(world.registry, NAME), world.state, older)["differences"]
    assert one["what"] == (
        f"the server {address} serves version 1 (1-older), the link names version 1 ({world.release.folder.name}); it "
        "refused 2-new"
    )
