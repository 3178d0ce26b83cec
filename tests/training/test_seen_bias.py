from dataclasses import replace

import torch

from lrm.features.tables import read
from lrm.presets import preset
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from tests.worlds import write_examples


def test_the_sequential_preset_learns_to_leave_out_what_was_seen(tmp_path):
    """In a world where nobody chooses an item twice, the bias of items in the history goes down."""
    from lrm.model.recommender import Recommender
    from lrm.training.loop import fit

    tables = read(write_examples(tmp_path, n_users=60))
    once = tables.events.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    tables = tables._replace(events=once)
    config = preset("sequential")
    training = replace(config.training, max_steps=30, batch_tokens=512, learning_rate=1e-2, warmup_steps=2)
    config = replace(config, training=training, model=replace(config.model, max_history=16))
    torch.manual_seed(0)
    vocabulary = fit_vocabulary(tables, (), config.tokens)
    recommender = Recommender(config, (), vocabulary)
    done = fit(recommender, encode_corpus(tables, (), vocabulary), seed=0, checkpoints=None)
    losses = [loss for _, loss in done.curves["train/next_item_loss"]]
    assert losses[-1] < losses[0]
    assert recommender.head.seen_bias is not None
    assert recommender.head.seen_bias.item() < -0.1
