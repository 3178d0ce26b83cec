"""Two people act at the same moment: whatever the order, servers end at the champion, and who was overtaken is told."""

import pytest

from lrm.registry import backend
from lrm.registry.address import path_of
from lrm.serving.release import root_of, served_version
from tests.registry import children
from tests.registry.conftest import NAME
from tests.registry.test_kills import link, write_release

BEFORE_THE_CHECK = ("lrm.registry.run", "champion_held")
BEFORE_THE_LINK = ("lrm.serving.release", "_point")


@pytest.fixture
def state(registry, register, promote):
    """Version 1 in service; versions 2 and 3 wait, all with a kept release."""
    state = path_of(registry).parent
    promote(register("a"), run_id="1")
    for weights in "bc":
        register(weights, verdict="keep")
    for version in "123":
        write_release(state / "serving" / NAME / f"{version}-abc", version)
    link(state, "1")
    return state


def begun(action, state, place):
    """A process that acts and has stopped there; what lets it go on, and where it tells its exit code."""
    reached, go, code = children.PROCESSES.Event(), children.PROCESSES.Event(), children.PROCESSES.SimpleQueue()
    child = children.PROCESSES.Process(target=children.paused, args=(action, state, place, reached, go, code))
    child.start()
    reached.wait()
    return child, go, code


def ended(state):
    """The champion, and what servers are told to serve."""
    store = backend.connect(children.registry_of(state), NAME)
    return backend.alias(store, backend.CHAMPION), served_version(root_of(state, NAME))


@pytest.mark.parametrize(
    ("before", "slow", "quick", "expected"),
    [
        ((), "approve", "rollback", "1"),
        ((), "approve", "approve 3", "3"),
        (("approve",), "rollback", "approve 3", "3"),
    ],
)
def test_who_is_overtaken_before_the_link_moved_leaves_it_where_the_later_decision_put_it(
    state, before, slow, quick, expected
):
    for action in before:
        children.act(action, state)
    child, go, code = begun(slow, state, BEFORE_THE_CHECK)
    children.act(quick, state)
    go.set()
    assert code.get() == 1
    child.join()
    assert ended(state) == (expected, expected)


def test_who_comes_while_the_link_moves_waits_and_moves_it_after(state):
    first, go, code = begun("approve", state, BEFORE_THE_LINK)
    second, go_too, code_too = begun("rollback", state, ("lrm.registry.run", "rollback"))
    go_too.set()
    go.set()
    assert (code.get(), code_too.get()) == (0, 0)
    first.join(), second.join()
    assert ended(state) == ("1", "1")


def test_what_prune_removes_cannot_be_put_in_service_meanwhile(state):
    """Version 2 waits and is not the latest: prune lists its release and its files while somebody approves it."""
    asked = ["prune", "--yes", "--state", str(state), "--runs", str(state / "runs")]
    pruned, go, code = begun("main", asked, ("local.garbage_collection", "remove"))
    argv = ["approve", "2", "--reason", "wanted", "--state", str(state), "--runs", str(state / "runs")]
    approved, go_too, code_too = begun("main", argv, ("lrm.registry.promotion", "move_to"))
    go_too.set()
    approved.join(timeout=2)  # it waits for prune: without that it has ended by now, with version 2 in service
    go.set()
    assert (code.get(), code_too.get()) == (0, 1)
    pruned.join(), approved.join()
    assert ended(state) == ("1", "1")
    assert (root_of(state, NAME) / "current").exists()
