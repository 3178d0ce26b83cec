"""A run whose data hold long names without a gap, and text that is read from right to left."""

from __future__ import annotations

import json
from pathlib import Path

from tests.reporting import runs

LONG = "Kategorie-mit-einem-sehr-langen-Namen-ohne-jede-Trennstelle-" * 4
RIGHT_TO_LEFT = "\u05d7\u05dc\u05d1 \u05de\u05dc\u05d0 3% - \u0645\u0631\u062d\u0628\u0627 (1 L)"


def sprawling(folder: Path) -> Path:
    """A failed run with names, categories and titles that are long, or written from right to left."""
    runs.promoted(folder)
    message = f"- requests.store: known category: 3 bad rows; for example user_id={'u' * 300}"
    runs.write_record(folder, "validate_data", state="failed", error={"type": "ValidationFailed", "message": message})
    row = {"request_id": 4, "user_id": "u" * 300, "store": LONG, "name": RIGHT_TO_LEFT}
    broken = runs.check("known category", "requests", f"store_{LONG}", success=False, observed=LONG,
                    expected=", ".join([LONG, RIGHT_TO_LEFT] * 9), n_bad=3, examples=[row])  # fmt: skip
    drift = [{**runs.VALIDATION["drift"][0], "signal": f"store_{LONG}"}]
    runs.write(folder, "steps/validate_data/validation.json", runs.VALIDATION | {"checks": [broken], "drift": drift})
    cards = json.loads(json.dumps(runs.EVALUATION["recommendations"]))
    cards[0]["user_id"] = LONG
    cards[0]["recommended"][0]["title"] = cards[0]["history"][-1]["title"] = LONG
    cards[1]["recommended"][0]["title"] = cards[1]["history"][-1]["title"] = RIGHT_TO_LEFT
    rows = [*runs.sliced(f"store = {LONG}", "ranking", "auc", (0.77, 0.75, 0.77), 0.02, 88), *runs.EVALUATION["slices"]]
    runs.write(folder, runs.EVALUATION_FILE, runs.EVALUATION | {"recommendations": cards, "slices": rows})
    skew = [{**runs.STAGING["skew"][0], "user_id": LONG, "item_id": LONG, "signals": [f"store_{LONG}"]}]
    runs.write(folder, "steps/check_in_staging/staging.json", runs.STAGING | {"skew": skew})
    return folder
