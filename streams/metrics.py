"""Every number that Safehold shows to Prometheus, in one table: the constructor of `Metrics`.

Counters are raised once a batch, not once a payment. Labels are bounded: never an account, a transaction or free text.
`docs/metrics.md` is written from this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

NAMESPACE = "safehold"
CONTENT_TYPE = CONTENT_TYPE_LATEST

STEP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
FLUSH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str
    buckets: tuple[float, ...] = ()


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        self.rows: list[Row] = []

        # -- intake
        self.intake_messages = self._counter(
            "intake_messages_total",
            "Messages read from bank topics, by what became of them.",
            ("source", "outcome"),
        )
        self.intake_rejected = self._counter(
            "intake_rejected_total",
            "Transactions and messages that were not accepted, by reason.",
            ("reason",),
        )
        self.intake_front = self._gauge(
            "intake_front_timestamp_seconds",
            "Greatest event time read from a source partition.",
            ("source", "partition"),
        )

        self.intake_stuck = self._gauge(
            "intake_stuck",
            "1 while a source partition with a backlog gives nothing and the others go on without it.",
            ("source", "partition"),
        )

        self.pseudonym_collisions = self._counter(
            "pseudonym_collisions_total",
            "Pseudonyms that came with a second account: two people's money is judged as one. Must stay 0.",
        )

        # -- the ledger and the monitor
        self.ledger_lag = self._gauge(
            "ledger_lag_records", "Ledger messages that are appended and not yet applied.", ("partition",)
        )
        self.judged_legs = self._counter("judged_legs_total", "Legs that were judged.")
        self.legs = self._counter(
            "legs_total",
            "Ledger legs by outcome: judged, late, duplicate, conflict, hub, redelivered, quarantined.",
            ("outcome",),
        )
        self.recommendations = self._counter(
            "recommendations_total", "Recommendations published, revisions included.", ("action", "mode")
        )
        self.withdrawals = self._counter("withdrawals_total", "Recommendations withdrawn.")
        self.detector_fired = self._counter(
            "detector_fired_total", "Legs for which a detector passed its screen.", ("detector",)
        )
        self.detector_errors = self._counter(
            "detector_errors_total", "Legs for which a detector failed; its answer is missing.", ("detector",)
        )
        self.dead_letters = self._counter(
            "dead_letters_total", "Records put into the dead-letter topic.", ("reason",)
        )
        self.step_time = self._histogram(
            "step_seconds", "Time of one step: a batch of frames judged.", STEP_BUCKETS
        )
        self.latency = self._histogram(
            "latency_seconds",
            "From the append of the bank's message to the acknowledged recommendation.",
            LATENCY_BUCKETS,
        )

        self.partitions_stopped = self._gauge(
            "partitions_stopped", "Ledger partitions that stopped on an error and wait for an operator."
        )

        self.quarantined_frames = self._counter(
            "quarantined_frames_total",
            "Ledger frames that two people set aside, when this worker settled it.",
        )
        self.accepted_gaps = self._counter(
            "accepted_gaps_total",
            "Times that a partition went on where its ledger begins later than its state ends: records are lost.",
        )

        # -- state
        self.flush_time = self._histogram(
            "flush_seconds", "Time of one write of the state, head included.", FLUSH_BUCKETS
        )
        self.state_accounts = self._gauge("state_accounts", "Accounts held in memory.", ("partition",))
        self.state_store_errors = self._counter(
            "state_store_errors_total", "Failures of the state store after its own retries."
        )
        self.fence_lost = self._counter(
            "fence_lost_total",
            "Writes refused because the partition has another owner or the store went back.",
        )
        self.balance_breaks = self._gauge(
            "balance_breaks",
            "Source partitions and days whose counts do not balance, by the heads of all partitions. Must stay 0.",
        )

        # -- the process
        self.last_progress = self._gauge(
            "last_progress_timestamp_seconds",
            "When a loop last got something done, or had nothing to do: what /livez asks.",
            ("loop",),
        )
        self.config_version = self._gauge(
            "config_version_info", "1 for the digest of the detector configuration in force.", ("digest",)
        )
        self.build = self._gauge(
            "build_info",
            "1 for what runs: Safehold, its commit, and what its answers and speed depend on.",
            ("version", "revision", "python", "numpy", "numba", "tzdata"),
        )

    def use_config(self, digest: str) -> None:
        """Show this digest as the one in force, and no other."""
        self.config_version.clear()
        self.config_version.labels(digest).set(1)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def names(self) -> set[str]:
        """Every series name that can be asked for, histogram parts included: for rules and boards to be checked."""
        found: set[str] = set()
        for row in self.rows:
            parts = ("_bucket", "_sum", "_count") if row.kind == "histogram" else ("",)
            found |= {row.name + part for part in parts}
        return found

    def _row(
        self, kind: str, name: str, about: str, labels: Sequence[str], buckets: tuple[float, ...] = ()
    ) -> None:
        self.rows.append(Row(f"{NAMESPACE}_{name}", kind, tuple(labels), about, buckets))

    def _counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Counter:
        self._row("counter", name, about, labels)
        return Counter(name, about, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, about: str, labels: Sequence[str] = ()) -> Gauge:
        self._row("gauge", name, about, labels)
        return Gauge(name, about, labels, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        self._row("histogram", name, about, (), buckets)
        return Histogram(name, about, (), namespace=NAMESPACE, buckets=buckets, registry=self.registry)


def markdown() -> str:
    """`docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "Written from `streams/metrics.py`; a test keeps it current.",
        "",
        "Served at `/metrics` on the health port of each worker. Times are in seconds, timestamps since 1970 in UTC.",
        "",
        "| metric | kind | labels | what it says | buckets |",
        "|---|---|---|---|---|",
    ]
    for row in Metrics().rows:
        labels = ", ".join(f"`{label}`" for label in row.labels) or "–"
        buckets = " ".join(f"{bucket:g}" for bucket in row.buckets) or "–"
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.about} | {buckets} |")
    return "\n".join([*lines, ""])
