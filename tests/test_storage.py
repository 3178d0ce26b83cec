"""A file is whole or not there."""

import hashlib
import threading

import pytest

from lrm.storage import sha256_of, whole_file, write_json, write_text


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text("old")
    with whole_file(path) as partial:
        partial.write_text("new, ")
        assert path.read_text() == "old"
        partial.write_text("new, and whole")
    assert path.read_text() == "new, and whole"
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def write_half(path):
    with whole_file(path) as partial:
        partial.write_text("half")
        raise OSError("disk full")


def test_writers_of_one_place_at_once_leave_one_of_their_files_whole(tmp_path):
    path, texts = tmp_path / "facts.json", [str(n) * 100_000 for n in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert [file.name for file in tmp_path.iterdir()] == ["facts.json"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")}, allow_nan=False)
    assert path.read_text() == '{\n "a": 1\n}\n'


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "weights").write_bytes(b"\x00\xff" * 1000)
    assert sha256_of(tmp_path / "weights") == hashlib.sha256(b"\x00\xff" * 1000).hexdigest()
