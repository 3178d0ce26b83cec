"""RecTools' sequential models behind the questions that our evaluation asks (https://github.com/MobileTeleSystems/RecTools).

`SASRec` is its SASRecModel; `eSASRec` the same training with LiGR blocks and a sampled softmax (2508.06450).

Axes: R requests, V items of the catalogue, T places of a history.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch

from lrm.evaluation.metrics.metrics import Floats, Ints
from lrm.evaluation.predictions import Histories
from lrm.features.tables import Tables
from lrm.schema import EVENT_TIME, ITEM_ID, SPLIT, TRAIN, USER_ID

PEERS = ("SASRec", "eSASRec")
N_NEGATIVES = 256
MISSING_SCORE = -1e9
"""Of an item without a training event, which the peer does not know."""


def interactions(tables: Tables) -> Any:
    """The training events as a RecTools data set; instants are the place in the user's order."""
    from rectools.dataset import Dataset

    trained = tables.events.filter(pl.col(SPLIT) == TRAIN)
    rows = trained.select(
        user_id=USER_ID, item_id=ITEM_ID, weight=pl.lit(1.0), datetime=pl.col(EVENT_TIME).dt.replace_time_zone(None)
    )
    return Dataset.construct(rows.to_pandas())


class Peer:
    """A fitted RecTools model, which scores the whole catalogue from the history that is visible at each request."""

    def __init__(self, model: Any, tables: Tables, seen: Histories) -> None:
        self.item_ids: np.ndarray = tables.items[ITEM_ID].to_numpy()
        self._model, self._seen = model, seen
        known = model.data_preparator.item_id_map.to_internal
        self._token = np.array([known.get(item, 0) for item in self.item_ids], dtype=np.int64)

    @torch.inference_mode()
    def item_scores(self, request_ids: Ints, /) -> Floats:
        """(R, V) inner products of the state after the history with every item."""
        net, length = self._model.torch_model, self._model.session_max_len
        was_training = net.training
        net.eval()
        tokens = np.zeros((len(request_ids), length), dtype=np.int64)
        for row, request_id in zip(tokens, request_ids, strict=True):
            known = self._token[self._seen.items(request_id)]
            known = known[known > 0][-length:]
            row[length - len(known) :] = known
        items = net.item_model.get_all_embeddings()
        states = net.encode_sessions({"x": torch.from_numpy(tokens)}, items)[:, -1]
        scores: Floats = (states @ items[self._token].T).numpy()
        scores[:, self._token == 0] = MISSING_SCORE
        net.train(was_training)
        return scores


def fit(name: str, data: Any, *, epochs: int, after_epoch: Callable[[Any, int, float], bool], **settings: Any) -> Any:
    """Train a RecTools model; `settings` are its own (n_factors, n_blocks, session_max_len, batch_size, ...).

    `after_epoch` gets the model, the epoch (from 1) and the CPU-seconds of training so far, and says whether to go on.
    """
    from pytorch_lightning import Callback, LightningModule, Trainer
    from rectools.models import SASRecModel
    from rectools.models.nn.transformers.ligr import LiGRLayers

    class Watch(Callback):  # type: ignore[misc]
        def on_train_start(self, *_: Any) -> None:
            self.started, self.elsewhere = time.process_time(), 0.0

        def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
            now = time.process_time()
            if not after_epoch(model, trainer.current_epoch + 1, now - self.started - self.elsewhere):
                trainer.should_stop = True
            self.elsewhere += time.process_time() - now

    def trainer() -> Trainer:
        off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        return Trainer(max_epochs=epochs, accelerator="cpu", devices=1, callbacks=[Watch()], **off)

    if name == "eSASRec":
        settings |= {"loss": "sampled_softmax", "n_negatives": N_NEGATIVES, "transformer_layers_type": LiGRLayers}
    model = SASRecModel(**settings, get_trainer_func=trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data)
    return model
