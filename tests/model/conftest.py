import pytest

from lrm.features.tables import read, read_declared
from tests.worlds import write_examples


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tables and signals of nine users."""
    folder = write_examples(tmp_path_factory.mktemp("world"), n_users=9, n_items=12, n_events=14)
    return read(folder), read_declared(folder)
