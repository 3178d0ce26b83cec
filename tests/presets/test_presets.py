from collections.abc import Iterator
from pathlib import Path

import pytest

from lrm.config import from_json, to_json
from lrm.errors import ConfigError, SchemaError
from lrm.presets import PRESETS, check_parts, find_preset, preset, preset_names
from lrm.presets.preset import Preset
from lrm.presets.table import HEADER, preset_table
from tests.outside_package import installed

THEIRS = """
from dataclasses import replace

from lrm.presets import Preset, preset


def make():
    tiny = preset("tiny")
    return replace(tiny, training=replace(tiny.training, objectives={"guess": 2.0}))


MINE = Preset(make=make, purpose="to show how", source="2401.00001", time="seconds")
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a preset of another package, which is installed on the path."""
    parts = {"lrm.presets": "theirs = their_presets:MINE"}
    with installed(tmp_path / "package", monkeypatch, modules={"their_presets": THEIRS}, parts=parts):
        yield "theirs"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_carries_its_name_names_installed_parts_and_survives_json_unchanged(name):
    config = preset(name)
    assert config.name == name
    check_parts(config)
    assert from_json(to_json(config)) == config


def test_a_preset_with_a_memory_reads_as_far_back_as_the_default_in_a_shorter_prompt():
    for kind in ("linear", "attention"):
        config = preset(f"memory-{kind}")
        assert config.tokens.memory == kind
        assert config.events_read == preset("default").events_read == 512
        assert config.model.max_history + config.tokens.memory_tokens == 264


def test_the_elastic_preset_has_as_many_tokens_as_its_largest_budget():
    tokens = preset("elastic").tokens
    assert (tokens.elastic, tokens.n_query_tokens, tokens.n_candidate_tokens) == (True, 16, 16)


def test_an_unknown_preset_is_refused_with_the_names_that_exist_and_how_to_read_of_them():
    with pytest.raises(
        SchemaError,
        match=r"no preset is called 'huge'; there are default, sequential, .*elastic.*`python pipeline.py run --preset "
        "list` explains them",
    ):
        preset("huge")


def test_a_preset_of_an_installed_package_is_found_and_listed(theirs):
    assert theirs in preset_names()
    assert preset(theirs).training.objectives == {"guess": 2.0}
    (row,) = [line for line in preset_table().splitlines() if line.startswith(theirs)]
    assert row.split("  ")[0] == "theirs"
    assert all(word in row for word in ("to show how", "2401.00001", "seconds", "softmax_attention", "2 guess"))


def test_a_preset_with_a_part_that_is_not_installed_is_refused_before_anything_is_imported(theirs):
    with pytest.raises(ConfigError, match=r"lrm.training.objectives has no part called 'guess'; it has .*next_item"):
        check_parts(preset(theirs))


def test_the_table_explains_every_preset_in_one_line():
    header, rule, *rows = preset_table().splitlines()
    assert [row.split("  ")[0] for row in rows] == preset_names()
    assert all(title in header for title in HEADER)
    assert set(rule) == {"-", " "}
    for name in PRESETS:
        about = find_preset(name)
        assert isinstance(about, Preset)
        assert about.purpose
        assert about.time
