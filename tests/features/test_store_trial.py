"""What could only fail once a model is trained ends the first step, and says what to do."""

import re

import pytest

from lrm.errors import LrmError, SchemaError, StoreError
from lrm.features.run import retrieve_features
from lrm.features.store_trial import require_servable
from tests import services
from tests.data_worlds import FEATURE_STORE
from tests.features.conftest import change_views
from tests.online_stores import KINDS, place

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SQLITE = "  type: sqlite\n  path: state/online.db\n"
YAMLS = {
    "no YAML": ("project: tiny_world", "project: [", r"expected .* line \d+"),
    "no mapping": (FEATURE_STORE, "hello", "keys such as project and online_store, got str"),
    "nothing": (FEATURE_STORE, "", "keys such as project and online_store, got NoneType"),
    "no project": ("project: tiny_world\n", "", "project: Field required"),
    "a hyphen": ("tiny_world", "tiny-world", "project: .* cannot contain hyphens"),
    "a space": ("tiny_world", "tiny world", "project: .* alphanumerical"),
    "a variable that is not set": ("tiny_world", "${LRM_NOT_SET_HERE}", "variable LRM_NOT_SET_HERE is not set"),
    "an unknown store": ("type: sqlite", "type: sqlit", "'sqlit'"),
    "an unknown key": ("path: state/online.db", "pat: x", "pat: Extra inputs"),
    "an absent driver": (SQLITE, "  type: mongodb\n", "mongodb.*No module named 'pymongo'"),
    "keys that are missing": (SQLITE, "  type: postgres\n", "host: Field required; database: .*; user: .*; password: "),
    "an unknown offline store": ("type: duckdb", "type: duckbd", "'duckbd'"),
}


def spoil(data, old, new):
    path = data / "feature_repo" / "feature_store.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("fault", YAMLS)
def test_a_feature_store_that_cannot_be_used_ends_the_first_step(data, tmp_path, fault):
    old, new, message = YAMLS[fault]
    spoil(data, old, new)
    with pytest.raises(SchemaError, match=f"feature_store.yaml cannot be used .*{message}.*mend it"):
        retrieve_features(data, data / "feature_repo", tmp_path / "examples")
    assert not (tmp_path / "examples" / "events.parquet").exists()


def test_a_store_that_does_not_answer_ends_the_first_step(data, tmp_path):
    where = f'  type: redis\n  connection_string: "127.0.0.1:{services.free_port()}"\n'
    spoil(data, SQLITE, where)
    with pytest.raises(StoreError, match=r"the online store does not answer .*Connection refused"):
        retrieve_features(data, data / "feature_repo", tmp_path / "examples")


def test_a_registry_that_does_not_answer_ends_the_first_step(data):
    address = f"postgresql+psycopg2://postgres@127.0.0.1:{services.free_port()}/postgres"
    spoil(data, "registry: state/registry.db", f"registry: {{registry_type: sql, path: '{address}'}}")
    with pytest.raises(LrmError, match="Connection refused"):
        require_servable(data / "feature_repo", data)


def test_all_faults_are_named_at_once(data):
    for view in ("item_content", "user_profile"):
        change_views(data, f'    name="{view}",\n', f'    name="{view}",\n    online=False,\n')
    spoil(data, "tiny_world", "tiny-world")
    with pytest.raises(SchemaError) as error:
        require_servable(data / "feature_repo", data)
    said = str(error.value)
    assert re.findall(r"view '(\w+)' says online=False", said) == ["user_profile", "item_content"]
    assert "cannot contain hyphens" in said


def test_a_base_table_need_not_be_online(data):
    change_views(data, '    name="events",\n', '    name="events",\n    online=False,\n')
    require_servable(data / "feature_repo", data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_leaves_nothing_in_the_store(data, kind):
    with place(kind) as found:
        found.give(data / "feature_repo")
        require_servable(data / "feature_repo", data)
        assert kind == "sqlite" or found.names("lrm_scratch_") == []


def test_names_that_postgres_would_shorten_are_refused(data):
    with place("postgres") as found:
        project = found.give(data / "feature_repo")
        spoil(data, project, "p" * 50)
        with pytest.raises(SchemaError, match=r"PostgreSQL keeps 63 bytes of p{50}_user_profile_ek, .*shorten"):
            require_servable(data / "feature_repo", data)
