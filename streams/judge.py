"""The same fold as the worker's, on a file: no broker, no store, one process, the same bodies.

Payments go through `LegBuilder` into frames and through `detectors.step`, as they do behind Kafka. Only what stands is kept:
the latest body of each recommendation. What it refers to is named again in a second pass over the file, so that memory grows
with accounts and recommendations, not with the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from detectors.body import body_bytes
from detectors.config import Config
from detectors.model import ACTION_NAMES, Control, Fact, Frame, Kind
from detectors.partition import partition_of
from detectors.settings import FoldSettings
from detectors.step import Listed, Recommendation, Withdrawal, new_state, step
from streams.formats.files import LegRows
from streams.legs import COORDINATE_BITS, LegBuilder
from streams.opening import Opened
from streams.payment import Payment, Rejected
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.publish import rfc3339
from streams.rates import load_rates
from streams.rows import counts_partition
from streams.versions import with_zone_data

SOURCE = "file/0"
STEP_LEGS = 16_000
"""Legs of one step. What stands in the end does not depend on it."""

KEPT_REJECTS = 1_000
"""Rejects that are listed one by one; all are counted."""


@dataclass(slots=True)
class Summary:
    """What became of the file."""

    transactions: int = 0
    legs: int = 0
    judged: int = 0
    late: int = 0
    duplicates: int = 0
    conflicts: int = 0
    at_hubs: int = 0
    no_effect: int = 0
    rejects: int = 0
    rejects_by_reason: dict[str, int] = field(default_factory=dict)
    recommendations: int = 0
    by_action: dict[str, int] = field(default_factory=dict)
    by_typology: dict[str, int] = field(default_factory=dict)
    accounts_named: int = 0
    detector_errors: int = 0
    seconds: float = 0.0
    legs_per_second: int = 0
    config_digest: str = ""
    balanced: bool = True


class FileJudge:
    """Judges batches of payments. One process, any number of ledger partitions, the same answer."""

    def __init__(
        self,
        config: Config,
        *,
        pseudonyms: Pseudonyms | None = None,
        settings: FoldSettings | None = None,
        partitions: int = 1,
        system_wide: bool = False,
    ) -> None:
        self.pseudonyms = pseudonyms or Pseudonyms(PUBLIC_KEY)
        self.system_wide = system_wide
        lengths = with_zone_data(settings or FoldSettings())
        self._states = [new_state(p, partitions, lengths, config) for p in range(partitions)]
        self.rates = load_rates().u_micro
        self._builder = LegBuilder(partitions, self.pseudonyms, self.rates)
        self._offsets = [0] * partitions
        self._messages = 0
        self.standing: dict[str, Recommendation] = {}
        self.rejects: list[Rejected] = []
        """What was refused, as far as it is listed. Of a file `index` is the row, from 0."""
        self.listed: list[Listed] = []
        self.summary = Summary()

    def control(self, records: Sequence[Control]) -> None:
        """Enter what the bank and its partners say of accounts: facts to their own partition, the rest to each."""
        for partition in range(len(self._states)):
            for kind, mine in _by_kind(records, partition, len(self._states)):
                self._step(partition, [self._frame(partition, kind=kind, records=tuple(mine))])

    def take(self, batch: Sequence[Payment | Rejected], rows: Sequence[int] | None = None) -> None:
        """Take some payments, in the order of the file. `rows` are their rows in it, for `rejects`."""
        # A file has no append time. Its own newest time stands for it, so nothing in it can be from the future.
        received = max((item.time for item in batch if isinstance(item, Payment)), default=0)
        refused = self._builder.add(batch, SOURCE, self._messages, received, system_wide=self.system_wide)
        self._messages += 1
        if rows is not None:
            # What was refused before has its row already; what is refused here has its place in the batch.
            before = {id(item) for item in batch if isinstance(item, Rejected)}
            refused = [
                each if id(each) in before else msgspec.structs.replace(each, index=rows[each.index])
                for each in refused
            ]
        self._refused(refused)
        if self._builder.pending >= STEP_LEGS:
            self.flush()

    def take_rows(self, batch: LegRows) -> None:
        """Take rows that were made from columns, in the order of the file."""
        self._refused(batch.refused)
        self.summary.legs += len(batch.rows)
        for partition, rows in batch.split(len(self._states)).items():
            for first in range(0, len(rows), STEP_LEGS):
                part = rows[first : first + STEP_LEGS]
                legs = self._frame(
                    partition, kind=Kind.LEGS, rows=part, sources=batch.sources, banks=batch.banks
                )
                self._step(partition, [legs])
        if len(batch.counts):
            partition = counts_partition(batch.sources[0], len(self._states))
            counts = self._frame(partition, kind=Kind.COUNTS, rows=batch.counts, sources=batch.sources)
            self._step(partition, [counts])

    def _refused(self, refused: Sequence[Rejected]) -> None:
        for reject in refused:
            self.summary.rejects += 1
            reasons = self.summary.rejects_by_reason
            reasons[reject.reason.value] = reasons.get(reject.reason.value, 0) + 1
            if len(self.rejects) < KEPT_REJECTS:
                self.rejects.append(reject)

    def flush(self) -> None:
        """Judge what is gathered."""
        rows = self._builder.take()
        for partition in range(len(self._states)):
            frames = []
            legs, counts = rows.legs.get(partition), rows.counts.get(partition)
            if legs is not None:
                frames.append(
                    self._frame(partition, kind=Kind.LEGS, rows=legs, sources=rows.sources, banks=rows.banks)
                )
                self.summary.legs += len(legs)
            if counts is not None:
                frames.append(self._frame(partition, kind=Kind.COUNTS, rows=counts, sources=rows.sources))
            if frames:
                self._step(partition, frames)

    def finish(self, seconds: float) -> Summary:
        """Judge the rest and add up."""
        self.flush()
        total = self.counters()
        summary = self.summary
        summary.transactions = total["received"]
        summary.judged, summary.late = total["judged"], total["late"]
        summary.duplicates, summary.conflicts = total["duplicate"], total["conflict"]
        summary.at_hubs, summary.no_effect = total["hub"], total["no_effect"]
        summary.balanced = (
            total["received"] == total["accepted"] + total["rejected"]
            and 2 * total["accepted"] == summary.legs + total["no_leg"]
            and summary.legs
            == sum(total[name] for name in ("judged", "late", "duplicate", "conflict", "hub"))
        )
        bodies = [said.body for said in self.standing.values()]
        summary.recommendations = len(bodies)
        summary.by_action = {
            action: count
            for action in ACTION_NAMES[1:]
            if (count := sum(body.action == action for body in bodies))
        }
        for body in bodies:
            summary.by_typology[body.typology] = summary.by_typology.get(body.typology, 0) + 1
        summary.accounts_named = len({said.subject for said in self.standing.values()})
        summary.config_digest = self._states[0].head.config_digest
        summary.seconds = round(seconds, 3)
        summary.legs_per_second = round(summary.legs / seconds) if seconds > 0 else 0
        return summary

    def counters(self) -> dict[str, int]:
        """The counters of every partition's head, added up."""
        total: dict[str, int] = {}
        for state in self._states:
            for name, value in state.totals().items():
                total[name] = total.get(name, 0) + value
        return total

    def _frame(self, partition: int, **fields: Any) -> Frame:
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        return Frame(offset=offset, **fields)

    def _step(self, partition: int, frames: list[Frame]) -> None:
        state = self._states[partition]
        result = step(state, frames)
        state.mark_flushed()  # nothing is written down here, so nothing need be kept for it
        self.summary.detector_errors += sum(result.errors.values())
        for output in result.outputs:
            if isinstance(output, Recommendation):
                self.standing[output.body.recommendation_id] = output
            elif isinstance(output, Withdrawal):
                self.standing.pop(output.recommendation_id, None)
            elif isinstance(output, Listed) and len(self.listed) < KEPT_REJECTS:
                self.listed.append(output)


def _by_kind(
    records: Sequence[Control], partition: int, partitions: int
) -> Iterator[tuple[Kind, list[Control]]]:
    facts: list[Control] = []
    flags: list[Control] = []
    for record in records:
        if isinstance(record, Fact):
            if partition_of(record.subject, partitions) == partition:
                facts.append(record)
        else:
            flags.append(record)
    if facts:
        yield Kind.FACTS, facts
    if flags:
        yield Kind.FLAGS, flags


def fold_settings(payments: Opened) -> FoldSettings:
    """The lengths of the fold that a file's mapping asks for."""
    lateness = payments.mapping.lateness_us if payments.mapping is not None else 0
    settings = FoldSettings(observed_since=payments.observed_since())
    if lateness > settings.lateness:
        settings = msgspec.structs.replace(settings, lateness=lateness)
    return settings


def judge(
    payments: Opened,
    judge_: FileJudge,
    *,
    control: Sequence[Control] = (),
    progress: Callable[[int], None] = lambda done: None,
    now: Callable[[], float] = time.monotonic,
) -> Summary:
    """Judge a whole file. `progress` is told how many rows are behind."""
    started = now()
    if control:
        judge_.control(control)
    done = 0
    if payments.mapping is None:
        for batch, numbers in payments.numbered():
            judge_.take(batch, numbers)
            done += len(batch)
            progress(done)
    else:
        for rows in payments.rows(judge_.pseudonyms, judge_.rates):
            judge_.take_rows(rows)
            done += len(rows.transactions)
            progress(done)
    return judge_.finish(now() - started)


# -- what is written ------------------------------------------------------------------------------------------------


class Names:
    """The file's own account and transaction ids, for exactly those hashes that are asked for."""

    def __init__(self, subjects: Iterable[int], transactions: Iterable[int]) -> None:
        self._subjects = set(subjects)
        self._transactions = set(transactions)
        self.accounts: dict[str, str] = {}
        self.transactions: dict[str, str] = {}

    @classmethod
    def wanted(cls, said: Iterable[Recommendation]) -> Names:
        """For everything that these recommendations refer to."""
        bodies = [(one.subject, one.body) for one in said]
        reasons = [reason for _, body in bodies for reason in (*body.reasons, *body.mitigators)]
        ids = {tx for reason in reasons for tx in reason.tx_ids} | {body.trigger_tx for _, body in bodies}
        return cls((subject for subject, _ in bodies), (int(tx, 16) for tx in ids))

    def look(self, payments: Opened) -> None:
        """Go through the file again and keep the names that were asked for."""
        # Its own hashes: what the judge's remember may be forgotten by now.
        pseudonyms = Pseudonyms(PUBLIC_KEY, remember_new=True)
        if payments.mapping is None:
            for batch in payments.payments():
                self.look_at(batch, pseudonyms)
            return
        wanted = np.array(sorted(self._transactions), np.uint64)
        for rows in payments.rows(pseudonyms, load_rates().u_micro):
            self._accounts_of(pseudonyms)
            transactions = rows.rows["leg"] & ~np.uint64(1)
            for place in np.flatnonzero(np.isin(transactions, wanted)).tolist():
                row = int(rows.rows["coordinate"][place]) >> COORDINATE_BITS
                self.transactions[f"{int(transactions[place]):016x}"] = rows.transactions[row - rows.first]

    def look_at(self, batch: Sequence[Payment | Rejected], pseudonyms: Pseudonyms) -> None:
        """Keep the names that were asked for and stand in these payments."""
        for item in batch:
            if isinstance(item, Rejected):
                continue
            for party in (item.debtor, item.creditor):
                if party.account and (subject := pseudonyms.accounts[party.account]) in self._subjects:
                    self.accounts[f"{subject:016x}"] = party.account
            transaction = pseudonyms.transaction(item.bank, item.tx_id)
            if transaction in self._transactions:
                self.transactions[f"{transaction:016x}"] = item.tx_id

    def _accounts_of(self, pseudonyms: Pseudonyms) -> None:
        for subject, account in pseudonyms.take_new():
            if subject in self._subjects:
                self.accounts[f"{subject:016x}"] = account

    def reveal(self, document: dict[str, Any]) -> dict[str, Any]:
        """Put the names in place of the hashes, in place."""
        document["subject_account"] = self.accounts.get(
            document["subject_account"], document["subject_account"]
        )
        document["trigger_tx"] = self.transactions.get(document["trigger_tx"], document["trigger_tx"])
        for reason in (*document["reasons"], *document["mitigators"]):
            reason["tx_ids"] = [self.transactions.get(tx, tx) for tx in reason["tx_ids"]]
        for payment in document["payments"]:
            payment["tx_id"] = self.transactions.get(payment["tx_id"], payment["tx_id"])
        return document


def documents(said: Iterable[Recommendation], names: Names | None = None) -> Iterator[dict[str, Any]]:
    """Bodies as plain values, sorted by (event_time, recommendation_id), with the time also as people write it."""
    for one in sorted(said, key=lambda one: (one.body.event_time, one.body.recommendation_id)):
        document = msgspec.json.decode(body_bytes(one.body))
        document["event_time_iso"] = rfc3339(one.body.event_time)
        yield document if names is None else names.reveal(document)


def lines(said: Iterable[Recommendation], names: Names | None = None) -> Iterator[bytes]:
    """`recommendations.jsonl`, line by line."""
    for document in documents(said, names):
        yield msgspec.json.encode(document, order="sorted") + b"\n"
