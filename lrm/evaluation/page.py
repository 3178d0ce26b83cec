"""One self-contained page about an evaluation, from the content of `evaluation.json`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from lrm.evaluation.charts import Whisker, calibration, scale, whiskers
from lrm.evaluation.metrics.metrics import is_lower_better

Row = dict[str, Any]

MODELS = {
    "challenger": "Challenger",
    "champion": "Champion",
    "popular": "Most popular",
    "own_history": "Own history",
    "history_by_ranker": "Own history, sorted by the ranking head",
    "history_by_trees": "Own history, sorted by the trees",
    "ease_markov": "EASE + Markov",
    "trees": "Boosted trees",
}
WORDS = {"ndcg": "NDCG", "mrr": "MRR", "auc": "AUC", "ece": "Calibration error", "hit_rate": "Hit rate"}
VERDICTS = {
    "promote": "The challenger goes into service.",
    "keep": "The champion stays; the challenger is not promoted.",
    "reject": "The challenger is not fit to serve.",
    "inconclusive": "These data or this champion cannot tell, so the champion stays.",
}
STYLE = """
:root{--ink:#1c2330;--soft:#5d6879;--line:#e3e7ee;--paper:#fff;--ground:#f5f7fa;--good:#1a7f4b;--bad:#b3372f;
--challenger:#2f5bd7;--champion:#c77700;--popular:#7a8699;--own_history:#b5487e;--ease_markov:#0d8c8c;--trees:#8a4fbe;
--history_by_ranker:#6f7d14;--history_by_trees:#9c5a1d}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf3;--soft:#9aa6b8;--line:#2e3746;--paper:#1a212d;--ground:#121822;
--good:#4cc98a;--bad:#f0857c;--challenger:#7f9fff;--champion:#f0ae4a;--popular:#98a4b7;--own_history:#ef8fbb;--ease_markov:#45c9c9;
--trees:#c294ee;--history_by_ranker:#b5c24a;--history_by_trees:#d99a5b}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}h1{font-size:26px;margin:0 0 4px}
h2{font-size:18px;margin:0 0 12px}h3{font-size:14px;margin:0 0 6px}p{margin:0 0 8px}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:20px 24px;margin-top:20px;
overflow-x:auto}
.verdict{display:flex;gap:20px;align-items:flex-start;border-left:6px solid var(--tone)}
.badge{background:var(--tone);color:var(--paper);border-radius:999px;padding:4px 16px;font-weight:650;font-size:17px}
.promote{--tone:var(--good)}.keep,.inconclusive{--tone:var(--champion)}.reject{--tone:var(--bad)}
.soft,small,th{color:var(--soft)}ul{margin:6px 0 0;padding-left:20px}
table{border-collapse:collapse;width:100%}th{font-weight:500;font-size:13px;text-align:left;padding:4px 12px 6px 0}
td{border-top:1px solid var(--line);padding:4px 10px 4px 0;vertical-align:middle}
td.n:last-child{padding-right:0}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td svg{display:block}
.key{display:inline-block;width:10px;height:10px;border-radius:5px;background:var(--tint);margin-right:8px}
.challenger{--tint:var(--challenger)}.champion{--tint:var(--champion)}.popular{--tint:var(--popular)}
.own_history{--tint:var(--own_history)}
.history_by_ranker{--tint:var(--history_by_ranker)}.history_by_trees{--tint:var(--history_by_trees)}
.ease_markov{--tint:var(--ease_markov)}.trees{--tint:var(--trees)}.good{--tint:var(--good)}.bad{--tint:var(--bad)}
.plain{--tint:var(--soft)}svg circle{fill:var(--tint)}.whisker{stroke:var(--tint);stroke-width:2.5;
stroke-linecap:round}.rail{stroke:var(--line)}.zero{stroke:var(--soft);stroke-dasharray:3 3}
.bar{stroke:var(--ink);stroke-width:1.5}
.curve{fill:none;stroke:var(--challenger);stroke-width:1.5;opacity:.6}svg text{fill:var(--soft);font-size:11px}
.told{min-width:180px}.says{color:var(--tint);font-weight:600}
.cards{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(330px,1fr))}
.wide{grid-template-columns:repeat(auto-fit,minmax(500px,1fr))}.name{white-space:nowrap}
.card{border:1px solid var(--line);border-radius:10px;padding:12px 14px;min-width:0}
.card ol{margin:0 0 8px;padding-left:22px}.card,.told{overflow-wrap:anywhere}
.card li.hit{color:var(--good);font-weight:600}.legend span{margin-right:18px;white-space:nowrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:0}dt{color:var(--soft)}dd{margin:0;
overflow-wrap:anywhere}
"""


def page(result: Row, ledger: Row | None = None) -> str:
    """The page as HTML, with the signal ledger where there is one; nothing in it is fetched from elsewhere."""
    data, asked = result["data"], result["policy"]["values"]["decision"]
    sections = [
        _verdict(result),
        _rules(result),
        *(_metrics(result, task) for task in ("retrieval", "ranking") if task in result["tasks"]),
        _comparisons(result),
        _slices(result),
        _calibration(result),
        _ledger(ledger) if ledger else "",
        _recommendations(result),
        _facts(result),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Evaluation: {_text(result['verdict'])}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>Evaluation on {_text(data['name'])}</h1>"
        f'<p class="soft">Protocol {_text(data["protocol"])}. Intervals are {asked["confidence"]:.0%}, from '
        f"{asked['n_resamples']:,} paired draws of the test users.</p>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _verdict(result: Row) -> str:
    verdict = result["verdict"]
    reasons = "".join(f"<li>{_text(reason)}</li>" for reason in result["reasons"])
    return (
        f'<section class="verdict {verdict}"><span class="badge">{verdict}</span>'
        f"<div><b>{VERDICTS[verdict]}</b><ul>{reasons}</ul></div></section>"
    )


def _rules(result: Row) -> str:
    tones = {"passed": "good", "failed": "bad", "cannot tell": "champion"}
    body = []
    for rule in result["rules"]:
        tone, chart = tones.get(rule["outcome"], "plain"), ""
        if rule.get("value") is not None and _is_known(rule):
            dot, bar = _whisker(rule, tone, f"{rule['value']:+.4f}"), rule["bar"]
            span = scale([dot, Whisker(bar, bar, bar, "", "")], zero=True)
            chart = whiskers([dot], span, zero=True, width=200, bar=bar)
        says = f'<span class="says {tone}">{_text(rule["outcome"])}</span>'
        body.append(
            [
                _text(rule["rule"]),
                *(f'<div class="told">{_text(rule[what])}</div>' for what in ("asked", "seen")),
                chart,
                says,
            ]
        )
    head = ["rule", "asked", "seen", "difference", ""]
    return (
        '<section><h2>Rules of the gate</h2><p class="soft">The dashed line is no difference, the solid one the '
        f"margin that the policy allows.</p>{_table(head, body)}</section>"
    )


def _metrics(result: Row, task: str) -> str:
    models = {name: tasks[task] for name, tasks in result["models"].items() if task in tasks}
    sizes = ", ".join(f"{count:,} {what}" for what, count in result["tasks"][task].items())
    tables = []
    for metric in dict.fromkeys(metric for metrics in models.values() for metric in metrics):
        rows = {name: metrics[metric] for name, metrics in models.items() if _is_known(metrics.get(metric))}
        dots = {name: _whisker(cell, name, MODELS[name]) for name, cell in rows.items()}
        if not rows:
            continue
        span = scale(list(dots.values()))
        body = [
            [_model(name), whiskers([dots[name]], span, width=150), _value(cell), _range(cell), *_counts(cell)]
            for name, cell in rows.items()
        ]
        arrow = "lower is better" if is_lower_better(metric) else ""
        head = ["", "", "value", "interval", "users", "requests"]
        tables.append(f"<h3>{_metric(metric)} <small>{arrow}</small></h3>{_table(head, body)}")
    grid = "".join(f'<div class="card">{table}</div>' for table in tables)
    absent = "".join(
        f'<p class="soft">{MODELS[row["model"]]}: not there, as {_text(row["why"])}.</p>'
        for row in result.get("absent", [])
        if row["task"] == task
    )
    rarer = "" if task == "retrieval" else " Users of an AUC are those with the rarer outcome."
    return (
        f'<section><h2>{task.title()}</h2><p class="soft">{sizes}, all in the test window.{rarer}</p>{absent}'
        f'<div class="cards wide">{grid}</div></section>'
    )


def _comparisons(result: Row) -> str:
    rows = [row for row in result["comparisons"] if _is_known(row)]
    if not rows:
        return ""
    body = []
    for row in rows:
        same = [other for other in rows if (other["task"], other["metric"]) == (row["task"], row["metric"])]
        span = scale([_whisker(other | {"value": other["difference"]}, "", "") for other in same], zero=True)
        tone, says = _tone(row)
        dot = _whisker(row | {"value": row["difference"]}, tone, f"{row['difference']:+.4f}")
        body.append(
            [
                f"{row['task'].title()}: {_metric(row['metric'])}",
                _model(row["against"]),
                whiskers([dot], span, zero=True, width=220),
                f"{row['difference']:+.4f}",
                f"{row['low']:+.4f} to {row['high']:+.4f}",
                f"{row['n_users']:,}",
                f"{row['p_worse']:.3f}" if row["p_worse"] >= 0.001 else "below 0.001",
                f'<span class="says {tone}">{says}</span>',
            ]
        )
    head = ["metric", "against", "challenger minus the other", "difference", "interval", "users", "P(not better)", ""]
    return f"<section><h2>Paired differences</h2>{_table(head, body)}</section>"


def _slices(result: Row) -> str:
    parts = []
    for task, metric in dict.fromkeys((row["task"], row["metric"]) for row in result["slices"]):
        rows = [row for row in result["slices"] if (row["task"], row["metric"]) == (task, metric) and _is_known(row)]
        dots = [_whisker(row, row["model"], f"{MODELS[row['model']]}: {_value(row)}") for row in rows]
        span = scale(dots)
        body = []
        for name in dict.fromkeys(row["slice"] for row in rows):
            inside = [(row, dot) for row, dot in zip(rows, dots, strict=True) if row["slice"] == name]
            own = next((row for row, _ in inside if row["model"] == "challenger"), None)
            n_users, few = inside[0][0]["n_users"], "" if inside[0][0]["is_conclusive"] else " <small>too few</small>"
            chart = whiskers([dot for _, dot in inside], span, width=460)
            body.append([_text(name), chart, _value(own) if own else "", f"{n_users:,}{few}"])
        title = f"{task.title()}: {_metric(metric)} on slices"
        models = dict.fromkeys(row["model"] for row in rows)
        legend = "".join(f"<span>{_model(model)}</span>" for model in models)
        table = _table(["slice", "", "challenger", "users"], body)
        parts.append(f'<section><h2>{title}</h2><p class="legend soft">{legend}</p>{table}</section>')
    return "".join(parts)


def _calibration(result: Row) -> str:
    if not result["calibration"]:
        return ""
    return (
        '<section><h2>Calibration of the challenger</h2><p class="soft">Share of positive labels over the predicted '
        "probability; on the dashed line the two agree. Chance alone makes a calibration error, never a negative one: "
        f"its interval may lie above the estimate.</p>{calibration(result['calibration'])}</section>"
    )


def _ledger(ledger: Row) -> str:
    task, metric = ledger["matters"][0]
    cells = [row["worth"].get(task, {}).get(metric) for row in ledger["signals"]]
    span = scale([_whisker(cell, "", "") for cell in cells if _is_known(cell)], zero=True)
    body = []
    for row, cell in zip(ledger["signals"], cells, strict=True):
        tone = {"keep": "good", "suspicious": "bad"}.get(row["verdict"], "plain")
        known = cell is not None and _is_known(cell)
        body.append(
            [
                f'<span class="name">{_text(row["signal"])}</span>',
                whiskers([_whisker(cell, tone, f"{cell['value']:+.4f}")], span, zero=True, width=200) if known else "",
                f"{cell['value']:+.4f}" if known else "0",
                f"{row['prompt_tokens']:.2f}",
                f"{row['online_bytes']:,.0f}",
                f"{row['null_rate']:.1%}",
                f'<span class="says {tone}" title="{_text(row["reason"])}">{_text(row["verdict"])}</span>',
            ]
        )
    head = ["signal", f"what its loss costs, {_metric(metric)}", "worth", "tokens", "bytes", "null", "verdict"]
    warnings = "".join(f'<p class="says bad">{_text(warning)}</p>' for warning in ledger["warnings"])
    return (
        f'<section><h2>Signal ledger</h2><p class="soft">Each signal shuffled on {ledger["n_requests"]:,} test '
        f"requests of {ledger['n_users']:,} users, the model left as it is; sorted by value per cost. Tokens and bytes "
        f"are those of a mean request.</p>{warnings}{_table(head, body)}</section>"
    )


def _recommendations(result: Row) -> str:
    cards = []
    for card in result["recommendations"]:
        history = "".join(f'<li dir="auto">{_text(event["title"])}</li>' for event in reversed(card["history"][-6:]))
        top = "".join(
            f'<li dir="auto" class="{"hit" if item["hit"] else ""}">{_text(item["title"])}'
            f"{' ✓' if item['hit'] else ''}</li>"
            for item in card["recommended"]
        )
        cards.append(
            f'<div class="card"><h3 dir="auto">User {_text(card["user_id"])} '
            f"<small>{_text(card['time'])[:16]}</small></h3>"
            f'<small>latest events first</small><ol class="soft">{history}</ol>'
            f"<small>recommended; a tick marks what came next</small><ol>{top}</ol></div>"
        )
    if not cards:
        return ""
    return f'<section><h2>A few recommendations</h2><div class="cards">{"".join(cards)}</div></section>'


def _facts(result: Row) -> str:
    about = {f"{name}: {key}": value for name, facts in result["about"].items() for key, value in facts.items()}
    seconds = {"seconds": ", ".join(f"{name} {value:g}" for name, value in result["seconds"].items())}
    policy = {"policy": result["policy"]["sha256"], "challenger content": result["challenger_content"]}
    facts = result["data"] | result["settings"] | policy | about | result["machine"] | seconds
    rows = "".join(
        f"<dt>{_text(k.replace('_', ' '))}</dt><dd>{_text(v)}</dd>" for k, v in facts.items() if v is not None
    )
    return f"<section><h2>How this was measured</h2><dl>{rows}</dl></section>"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    def css(cell: str) -> str:
        return ' class="n"' if cell[:1] in "+-0123456789" and cell else ""

    rows = [list(row) for row in body]
    numeric = [css(cell) for cell in rows[0]] if rows else [""] * len(head)
    top = "".join(f"<th{kind}>{name}</th>" for name, kind in zip(head, numeric, strict=True))
    lines = "".join("<tr>" + "".join(f"<td{css(cell)}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"


def _whisker(cell: Row, css: str, hint: str) -> Whisker:
    return Whisker(cell["value"], cell["low"], cell["high"], css, hint)


def _is_known(cell: Row | None) -> bool:
    """Whether a cell's bounds, and so its value, are numbers."""
    return cell is not None and cell["low"] is not None


def _tone(row: Row) -> tuple[str, str]:
    if row["low"] <= 0 <= row["high"]:
        return "plain", "unclear"
    return ("good", "better") if (row["low"] > 0) != is_lower_better(row["metric"]) else ("bad", "worse")


def _model(name: str) -> str:
    return f'<span class="name"><span class="key {name}"></span>{MODELS[name]}</span>'


def _metric(metric: str) -> str:
    stem, at, k = metric.partition("@")
    stem, masked, _ = stem.partition("_masked")
    return f"{WORDS.get(stem, stem.replace('_', ' ').capitalize())}{at}{k}{', seen items left out' if masked else ''}"


def _value(cell: Row) -> str:
    return f"{cell['value']:.4f}"


def _range(cell: Row) -> str:
    return f"{cell['low']:.4f} to {cell['high']:.4f}"


def _counts(cell: Row) -> tuple[str, str]:
    return f"{cell['n_users']:,}", f"{cell['n_requests']:,}"


def _text(value: object) -> str:
    return escape(str(value))
