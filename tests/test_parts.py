"""Parts of a model by name: this project's by their file, others' by an entry point."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lrm.errors import ConfigError
from lrm.parts import check_options, part, part_names
from tests.outside_package import installed

PACKAGE = "lrm.features.datasets"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of somebody else's, installed on the path, that has one part called `toy`."""
    parts = {PACKAGE: "toy = their_package\nsplit = their_package"}
    with installed(tmp_path / "package", monkeypatch, modules={"their_package": "answer = 42\n"}, parts=parts):
        yield "toy"


def test_a_part_of_the_project_is_the_module_of_its_name():
    assert part(PACKAGE, "movielens").__name__ == "lrm.features.datasets.movielens"


def test_a_part_of_an_installed_package_is_found_by_its_entry_point(toy):
    assert toy in part_names(PACKAGE)
    assert part(PACKAGE, toy).answer == 42


@pytest.mark.parametrize("name", ["nothing", "../errors", "movielens.sources", "os", ""])
def test_a_name_that_nobody_has_is_refused_with_the_names_there_are(name):
    with pytest.raises(ConfigError, match=r"has no part called .*it has .*movielens"):
        part(PACKAGE, name)


def test_an_option_that_a_part_does_not_have_is_refused_with_those_that_it_has():
    def made(width: int, *, depth: int = 1, bias: bool = True) -> None: ...

    check_options("the block 'toy'", made, {"depth": 2})
    with pytest.raises(ConfigError, match=r"the block 'toy' has no option 'width'; it has depth, bias"):
        check_options("the block 'toy'", made, {"width": 3, "depth": 2})
