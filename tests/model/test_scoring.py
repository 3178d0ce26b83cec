"""What a score may depend on: checked on a model with random weights, which would show any leak."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lrm.config import ModelConfig, RunConfig, TokensConfig
from lrm.errors import DataError, SchemaError
from lrm.features.tables import Tables, read, read_declared
from lrm.model import artifact
from lrm.model.heads import Wanted
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer, top
from lrm.presets import preset
from lrm.tokens.corpus import fit_vocabulary
from tests.worlds import random_weights, write_examples

REQUESTS = np.arange(40)
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Tables:
    return read(write_examples(tmp_path_factory.mktemp("world"), n_users=8))


@pytest.fixture(
    scope="module",
    params=["query tokens", "no query tokens", "grouped heads", "many tokens", "memory", "text", "hybrid", "noise"],
)
def recommender(request, tables, tmp_path_factory) -> Recommender:
    torch.manual_seed(0)
    folder = write_examples(tmp_path_factory.mktemp("declared"), n_users=8)
    config: RunConfig = preset("tiny")
    if request.param == "no query tokens":
        config = replace(config, tokens=replace(config.tokens, n_query_tokens=0))
    if request.param == "grouped heads":
        config = replace(config, model=ModelConfig(d_model=16, n_heads=4, n_kv_heads=2, max_history=10))
    if request.param == "many tokens":
        config = replace(config, tokens=replace(config.tokens, n_event_tokens=3, n_candidate_tokens=4))
    if request.param == "memory":
        tokens = replace(config.tokens, memory="attention", memory_events=6, memory_tokens=2)
        config = replace(config, tokens=tokens, model=replace(config.model, max_history=8))
    if request.param in ("text", "hybrid", "noise"):
        config = replace(config, tokens=replace(config.tokens, variant=request.param))
    signals = read_declared(folder)
    return random_weights(Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens)))


N_MANY = 320
"""Candidates of one request."""


def test_hundreds_of_candidates_score_together_as_each_alone_and_in_whatever_order(recommender, tables):
    """Whatever passed from one candidate to another would move a score, wherever in the row the two stand."""
    asked = 11
    rows = np.random.default_rng(0).integers(0, tables.candidates.height, N_MANY)
    many = tables.candidates[rows].with_columns(
        candidate_id=pl.int_range(pl.len()), request_id=pl.lit(asked, dtype=pl.Int64)
    )
    forth, back = (Scorer(recommender, tables._replace(candidates=each)) for each in (many, many.reverse()))
    together = forth.candidate_logits(np.array([asked]))

    def alone(row: int) -> np.ndarray:
        offset = row + (np.arange(forth.corpus.n_requests + 1) > asked)
        return forth.over(replace(forth.corpus, candidate_offset_R=offset)).candidate_logits(np.array([asked]))

    each = np.concatenate([alone(row) for row in range(N_MANY)])
    assert len(np.unique(each.round(4))) > N_MANY / 4
    assert together == pytest.approx(each, abs=TOLERANCE)
    assert back.candidate_logits(np.array([asked]))[::-1] == pytest.approx(together, abs=TOLERANCE)


def test_candidates_of_many_requests_score_together_as_each_alone(recommender, tables):
    together = Scorer(recommender, tables).candidate_logits(REQUESTS)
    for place in range(6):
        one_each = tables.candidates.filter(pl.int_range(pl.len()).over("request_id") == place)
        alone = Scorer(recommender, tables._replace(candidates=one_each)).candidate_logits(REQUESTS)
        assert together[place::6] == pytest.approx(alone, abs=TOLERANCE)


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["all kept", "some kept"])
def test_scores_over_kept_histories_are_those_of_whole_prompts(recommender, tables, share):
    whole, kept, all_kept = (Scorer(recommender, tables) for _ in range(3))
    all_kept.keep_histories(most_bytes=2**30)
    n_bytes = sum(prefix.n_bytes for prefix in all_kept._kept.values())
    kept.keep_histories(most_bytes=int(share * n_bytes))
    assert len(all_kept._kept) == tables.requests.height
    assert share / 2 < len(kept._kept) / tables.requests.height <= (1 + share) / 2
    assert kept.candidate_logits(REQUESTS) == pytest.approx(whole.candidate_logits(REQUESTS), abs=1e-5)
    assert kept.item_scores(REQUESTS) == pytest.approx(whole.item_scores(REQUESTS), abs=1e-5)


def turned(signals):
    """The same rows, the last one first."""
    return signals._replace(
        bucket_NF=signals.bucket_NF[::-1], value_NF=signals.value_NF[::-1], sparse_NS=signals.sparse_NS[::-1]
    )


def test_histories_and_catalogue_are_read_anew_where_they_changed(recommender, tables):
    scorer = Scorer(recommender, tables)
    scorer.keep_histories(most_bytes=2**30)
    before = scorer.item_scores(REQUESTS)
    corpus = scorer.corpus
    for changed in (
        {"history_E": turned(corpus.history_E)},
        {"event_identity_E": corpus.event_identity_E[::-1].copy()},
        {"item_identity_V": corpus.item_identity_V[::-1].copy()},
        {"query_R": turned(corpus.query_R)},
    ):
        other = replace(corpus, **changed)
        anew = Scorer(recommender, tables).over(other).item_scores(REQUESTS)
        assert scorer.over(other).item_scores(REQUESTS) == pytest.approx(anew, abs=1e-5)
        is_read = "query_R" not in changed or recommender.prompt_shape().per_query
        assert np.allclose(anew, before, atol=1e-3) != bool(is_read)


def test_a_later_event_never_moves_an_earlier_score(recommender, tables):
    before = tables.requests["event_time"][6]
    past = tables._replace(events=tables.events.filter(pl.col("event_time") < before))
    early = tables.requests.filter(pl.col("event_time") <= before)["request_id"].to_numpy()
    whole, cut = Scorer(recommender, tables), Scorer(recommender, past)
    assert whole.candidate_logits(early) == pytest.approx(cut.candidate_logits(early), abs=TOLERANCE)
    assert whole.item_scores(early) == pytest.approx(cut.item_scores(early), abs=TOLERANCE)


def test_batch_mates_and_padding_change_nothing(recommender, tables):
    scorer = Scorer(recommender, tables)
    alone = np.concatenate([scorer.item_scores(REQUESTS[i : i + 1]) for i in range(len(REQUESTS))])
    assert scorer.item_scores(REQUESTS) == pytest.approx(alone, abs=TOLERANCE)


def test_a_past_event_does_move_the_score(recommender, tables):
    swapped = tables.events.with_columns(item_id=pl.lit(100, dtype=pl.Int64))
    moved = Scorer(recommender, tables._replace(events=swapped)).item_scores(REQUESTS)
    assert np.abs(moved - Scorer(recommender, tables).item_scores(REQUESTS)).max() > 1e-3


def test_a_user_without_history_still_gets_finite_scores(recommender, tables):
    scorer = Scorer(recommender, tables._replace(events=tables.events.clear()))
    assert np.isfinite(scorer.item_scores(REQUESTS)).all()
    assert np.isfinite(scorer.candidate_logits(REQUESTS)).all()


def test_a_never_trained_item_is_scored_by_its_content(recommender, tables):
    new = tables.items[:2].with_columns(item_id=pl.Series([900, 901]))
    scorer = Scorer(recommender, tables._replace(items=pl.concat([tables.items, new])))
    scores = scorer.item_scores(REQUESTS)
    assert scorer.item_ids[-2:].tolist() == [900, 901]
    assert np.abs(scores[:, -1] - scores[:, -2]).max() > 1e-4


def test_an_artifact_round_trips_exactly(recommender, tables, tmp_path):
    artifact.save(recommender, tmp_path)
    loaded = artifact.load(tmp_path)
    assert loaded.config == recommender.config
    assert loaded.signals == recommender.signals
    again, first = (Scorer(model, tables).item_scores(REQUESTS) for model in (loaded, recommender))
    assert (again == first).all()


def test_an_unfinished_model_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"config.json is missing.*not a finished model folder"):
        artifact.load(tmp_path)


def test_only_the_latest_events_count_and_where_they_stand_in_the_past_does_not(tables):
    """Nine events give the eight that the decoder reads, and the time since the one before them."""
    torch.manual_seed(0)
    tokens = TokensConfig(min_item_count=1, min_category_count=1)
    config = RunConfig(tokens=tokens, model=ModelConfig(d_model=16, n_heads=2, max_history=8))
    recommender = random_weights(Recommender(config, (), fit_vocabulary(tables, (), tokens)))
    last = tables.requests.group_by("user_id", maintain_order=True).last()["request_id"].to_numpy()
    seen = tables.events.filter(pl.col("event_time") < tables.requests["event_time"][11])
    recent = seen.group_by("user_id", maintain_order=True).tail(9)
    whole, cut = (Scorer(recommender, tables._replace(events=events)).item_scores(last) for events in (seen, recent))
    assert whole == pytest.approx(cut, abs=TOLERANCE)


def test_weights_of_another_version_are_named(recommender, tmp_path):
    artifact.save(recommender, tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"d_model": 16', '"d_model": 24'))
    with pytest.raises(DataError, match=r"written by another version of the code: .* there and .* here"):
        artifact.load(tmp_path)


def test_tables_without_a_signal_of_the_model_are_refused(recommender, tables):
    with pytest.raises(SchemaError, match="no column for signal 'hour' of view 'requests'"):
        Scorer(recommender, tables._replace(requests=tables.requests.drop("hour")))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(2), [3, 0]),
        (Wanted(9), [3, 0, 1, 2]),
        (Wanted(1, only=np.array([0, 1, 2])), [0]),
        (Wanted(2, only=np.array([1, 3, 0]), without=np.array([3])), [0, 1]),
        (Wanted(3, only=np.array([], dtype=np.int64)), []),
    ],
)
def test_the_best_items_come_first_and_equals_keep_the_order_of_the_catalogue(wanted, expected):
    scores = np.array([0.5, 0.5, 0.1, 0.9], dtype=np.float32)
    assert top(scores, wanted).rows.tolist() == expected
    assert top(scores, wanted).scores.tolist() == scores[expected].tolist()
