"""A checkpoint is resumed only by the training that wrote it."""

import pytest

from lrm.training.checkpoint import identity


@pytest.mark.parametrize("place", ["training/loop.py", "model/blocks/decoder.py", "tokens/makers/bags/own.py"])
def test_code_in_any_subfolder_is_part_of_the_identity(place, tmp_path):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text("a = 1\n")
    before = identity("data", package=tmp_path)
    assert identity("data", package=tmp_path) == before
    assert identity("other data", package=tmp_path) != before
    path.write_text("a = 2\n")
    assert identity("data", package=tmp_path) != before
