"""What a candidate's tokens are made of: its own signals, and those of the request that asks for it."""

import numpy as np
import pytest
import torch

from lrm.features.tables import Tables, read
from lrm.model.recommender import Recommender
from lrm.tokens.corpus import encode_corpus
from lrm.tokens.factory import RequestContext
from tests.tokens.makers.test_variants import variant
from tests.worlds import SIGNALS, write_examples


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Tables:
    return read(write_examples(tmp_path_factory.mktemp("world"), n_users=12))


def candidate_tokens(recommender: Recommender, tables: Tables, context: RequestContext) -> torch.Tensor:
    corpus = encode_corpus(tables, SIGNALS, recommender.vocabulary)
    rows = np.arange(len(context.request_N))
    identity = torch.as_tensor(corpus.candidate_identity_C[rows])
    return recommender.factory.candidate_tokens(identity, corpus.candidate_C.take(rows), context)


@pytest.mark.parametrize(
    ("name", "tokens", "reads_it"),
    [
        ("soft", {}, True),
        ("frozen", {}, True),
        ("soft", {"query_in_candidates": False}, False),
        ("soft", {"n_query_tokens": 0}, False),
        ("constant", {}, False),
        ("none", {}, False),
        ("text", {}, False),
        ("hybrid", {}, False),
    ],
)
def test_a_candidates_tokens_read_the_signals_of_its_own_request_alone(name, tokens, reads_it, tables):
    recommender = variant(name, tables, **tokens)
    corpus = encode_corpus(tables, SIGNALS, recommender.vocabulary)
    mine, others = corpus.query_R.take(np.array([0, 1])), corpus.query_R.take(np.array([0, 2]))
    assert not torch.equal(mine.value_NF[1], others.value_NF[1])
    request = torch.tensor([0, 1, 0, 1])
    contexts = (recommender.factory.request_context(query, request) for query in (mine, others))
    before, after = (candidate_tokens(recommender, tables, context) for context in contexts)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert torch.equal(before[[1, 3]], after[[1, 3]]) != reads_it


def test_a_request_is_found_for_each_candidate_also_where_some_have_none(tables):
    recommender = variant("soft", tables)
    some = tables._replace(candidates=tables.candidates.filter(tables.candidates["request_id"] % 3 != 1))
    corpus = encode_corpus(some, SIGNALS, recommender.vocabulary)
    rows = np.array([0, 7, len(corpus.candidate_order_C) - 1])
    requests = some.candidates["request_id"].to_numpy()[corpus.candidate_order_C[rows]]
    context = recommender.factory.context_of_candidates(corpus, rows)
    wanted = recommender.factory.query.embed(corpus.query_R.take(requests))
    assert torch.equal(context.embedded_RMW[context.request_N], wanted)


def test_a_maker_that_may_not_learn_learns_nothing_of_requests_either(tables):
    frozen, soft = (
        variant("frozen", tables).factory.query_to_candidate,
        variant("soft", tables).factory.query_to_candidate,
    )
    assert frozen is not None
    assert soft is not None
    assert not frozen.weight.requires_grad
    assert soft.weight.requires_grad
