"""What the gate reads, and what each of its rules answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lrm.evaluation.estimates import Comparison
from lrm.evaluation.gate.alpha_spending import Looks
from lrm.evaluation.metrics.bootstrap import Interval
from lrm.evaluation.policy import Policy
from lrm.evaluation.staging_results import StagingResults

PROMOTE, KEEP, REJECT, INCONCLUSIVE = "promote", "keep", "reject", "inconclusive"
PASSED, FAILED, UNCLEAR, NOT_ASKED = "passed", "failed", "cannot tell", "not asked"
AT_K = frozenset({"ndcg", "recall", "hit_rate", "concentration", "coverage"})


class Facts(NamedTuple):
    """What is known of two models besides their answers."""

    data_faults: tuple[str, ...] = ()
    """Why the models' data do not fit the data that they are judged on, one sentence each."""
    leaks: tuple[str, ...] = ()
    """Proofs that a model saw what it could not have known, one sentence each, the signal named."""
    suspicions: tuple[str, ...] = ()
    """Signals that look like the outcome, one sentence each."""
    carrier: str = ""
    """What the ranking rests on most, as a sentence, the signal named; "" where that was not measured."""
    is_carried: bool = False
    """Without that signal the ranking loses more than a gain may be."""
    is_identical: bool = False
    """Challenger and champion have the same weights."""
    is_backfill: bool = False
    """The data end at an instant in the past that somebody asked for."""
    allow_backfill: bool = False
    """Whoever started the run said in words that such data may promote."""
    rolled_back: str | None = None
    """Who took the challenger's weights out of service, when and why; "" for nobody, None where nobody could say."""
    staging: StagingResults | None = None
    looks: Looks = Looks()
    """What earlier looks at these test data leave to this one."""
    recovered: Mapping[str, float] = {}
    """{signal: the share of what can be read from the signal itself that can be read from its tokens}."""


class GateInputs(NamedTuple):
    """All that the gate reads."""

    comparisons: list[Comparison]
    """The challenger against each other model, on all of a task and on slices."""
    values: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    """{model: {task: {metric: value with its interval}}}."""
    n_users: Mapping[str, int]
    """Test users of each task that there is; of ranking, those with the rarer outcome."""
    has_champion: bool
    k: int
    """Length of the list that a user sees."""
    faults: tuple[str, ...] = ()
    """What makes the challenger unfit to serve, one sentence each."""
    champion_faults: tuple[str, ...] = ()
    """What makes the champion unfit to compare with."""
    facts: Facts = Facts()
    at_look: tuple[Comparison, ...] = ()
    """The comparisons that decide, at the confidence of this look, where others came before it."""

    def has_usable_champion(self) -> bool:
        """Whether there are answers of a champion to compare with."""
        return self.has_champion and not self.champion_faults

    def metric(self, stem: str) -> str:
        """A metric's full name: `ndcg` is `ndcg@10`."""
        return f"{stem}@{self.k}" if stem in AT_K else stem

    def main_metrics(self, policy: Policy) -> list[tuple[str, str]]:
        """Each task with the metric that stands for it, the one that decides first."""
        tasks = [task for task in policy.decision.tasks if task in self.n_users]
        return [(task, self.metric(policy.decision.primary[task])) for task in tasks]

    def against(self, model: str, task: str, metric: str) -> Comparison | None:
        """The comparison on all of a task, if there is one."""
        key = (task, metric, model, "")
        return next((row for row in self.comparisons if (row.task, row.metric, row.against, row.slice) == key), None)

    def decides(self, model: str, task: str, metric: str) -> Comparison | None:
        """The comparison on all of a task by which a promotion is decided, at the confidence of this look."""
        found = (row for row in self.at_look if (row.task, row.metric, row.against) == (task, metric, model))
        return next(found, None) or self.against(model, task, metric)

    def value(self, model: str, task: str, metric: str) -> float:
        """A model's value; NaN where there is none."""
        found = self.values.get(model, {}).get(task, {}).get(metric)
        return found.value if found is not None else float("nan")


class RuleResult(NamedTuple):
    """What one rule asked and saw, and where that leads."""

    rule: str
    asked: str
    seen: str
    outcome: str
    """`passed`, `failed`, `cannot tell` or `not asked`."""
    verdict: str
    """The best verdict that it leaves open: `promote` where it stops nothing."""
    reason: str = ""
    """A sentence for the verdict's reasons; empty where the rule has nothing to add to them."""
    estimate: Interval | None = None
    """The difference that was judged, with its interval."""
    bar: float | None = None
    """What the interval was held against."""


def passed(rule: str, asked: str, seen: str, reason: str = "") -> RuleResult:
    """The rule holds."""
    return RuleResult(rule, asked, seen, PASSED, PROMOTE, reason)


def failed(rule: str, asked: str, seen: str, reason: str, *, verdict: str) -> RuleResult:
    """The rule is broken."""
    return RuleResult(rule, asked, seen, FAILED, verdict, reason)


def unclear(rule: str, asked: str, seen: str, reason: str) -> RuleResult:
    """It cannot be told whether the rule holds, so nothing may be promoted."""
    return RuleResult(rule, asked, seen, UNCLEAR, INCONCLUSIVE, f"Inconclusive: {reason}")


def not_asked(rule: str, asked: str, seen: str, reason: str = "") -> RuleResult:
    """The rule does not apply here."""
    return RuleResult(rule, asked, seen, NOT_ASKED, PROMOTE, reason)
