import numpy as np
import pytest

from lrm.evaluation.held_out import predict, predict_baselines, prepare
from lrm.evaluation.policy import METRICS, DecisionPolicy, LeakagePolicy, Policy, SlicePolicy, StagingPolicy
from lrm.features.tables import read
from lrm.presets import preset
from tests.worlds import SIGNALS, write_examples


def small_policy(**decision):
    """The default policy with fewer users and draws, no staging check, and what a test asks for."""
    few = {"min_users": 10, "n_resamples": 500} | decision
    known = {task: dict.fromkeys(metrics, 1.0) for task, metrics in METRICS.items()}
    return Policy(
        decision=DecisionPolicy(**few),
        slices=SlicePolicy(min_users=10),
        staging=StagingPolicy(required=False),
        leakage=LeakagePolicy(max_signal_auc=1.0, max_gain=known),  # an oracle is better than any model
    )


class Oracle:
    """Knows the targets and the planted signal; `noise` blurs both."""

    def __init__(self, tables, *, noise=0.0, seed=0):
        self.item_ids = tables.items["item_id"].to_numpy()
        self.tables, self.noise, self.rng = tables, noise, np.random.default_rng(seed)

    def item_scores(self, request_ids):
        scores = self.noise * self.rng.normal(size=(len(request_ids), len(self.item_ids)))
        for request_id, item_id in self.tables.targets.iter_rows():
            scores[np.ix_(request_ids == request_id, self.item_ids == item_id)] += 1
        return scores

    def candidate_logits(self, request_ids):
        rows = self.tables.candidates.filter(self.tables.candidates["request_id"].is_in(request_ids.tolist()))
        affinity = rows["affinity"].fill_null(0).to_numpy()
        return (6 * affinity + 6 * self.noise * self.rng.normal(size=rows.height)).astype(np.float32)


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("world") / "examples")


@pytest.fixture(scope="session")
def tables(examples):
    return read(examples)


@pytest.fixture(scope="session")
def config():
    return preset("tiny").evaluation


@pytest.fixture(scope="session")
def policy():
    """The shipped policy for a world of sixty users."""
    return small_policy()


@pytest.fixture(scope="session")
def held_out(tables, config):
    return prepare(tables, SIGNALS, config, seed=0)


@pytest.fixture(scope="session")
def baselines(held_out, config):
    return predict_baselines(held_out, config, seed=0)


@pytest.fixture(scope="session")
def oracle(held_out):
    return predict(held_out, "challenger", retriever=Oracle(held_out.tables), ranker=Oracle(held_out.tables))
