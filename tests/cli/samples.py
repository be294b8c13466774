"""A few dozen payments with one small ring in them, as payments, canonical lines and a CSV with its mapping."""

from __future__ import annotations

import functools
from pathlib import Path

from detectors.model import DAY, HOUR, MINUTE, SECOND, Channel, ClassSource, PartyClass
from streams.formats import canonical
from streams.payment import Party, Payment

BANK = "north"
START = 1_704_067_200 * SECOND  # 2024-01-01
MULE = "north/900"
COLLECTOR = "north/901"

MAPPING = """
version: 1
name: sample
about: the sample of the tests
bank: north
bank_codes: [N]
booked: true
currency: EUR
accounts: personal
others: personal
observed_since: first-record
columns:
  transaction: id
  time: at
  amount: amount
  debtor: payer
  creditor: payee
  debtor_bank: payer_bank
  creditor_bank: payee_bank
  channel: how
time:
  precision: exact
  format: iso8601
rules:
  - when: {channel: cash}
    set: {channel: atm}
  - when: {account: CASH}
    set: {party: {type: cash, nameless: true}}
"""


def _end(account: str) -> Party:
    if account == "CASH":
        return Party("", "", PartyClass.CASH, ClassSource.MAPPING)
    return Party(
        account, BANK if account.startswith(f"{BANK}/") else "other", PartyClass.PERSONAL, ClassSource.MAPPING
    )


@functools.cache
def payments() -> tuple[Payment, ...]:
    """Strangers pay a collector, who pays a mule, who draws it out, day after day; friends pay each other."""
    rows: list[tuple[int, str, str, int, bool]] = []
    for day in range(40):
        rows.append((day * DAY + 9 * HOUR, f"north/{day % 7}", f"north/{(day + 1) % 7}", 1500 + day, False))
        if 30 <= day < 38:
            for turn in range(4):
                start = day * DAY + (10 + turn) * HOUR
                rows.append((start, f"other/{day}-{turn}", COLLECTOR, 40_000 + day, False))
                rows.append(
                    (
                        start + 20 * MINUTE,
                        COLLECTOR,
                        MULE if turn == 0 else f"other/m{day}-{turn}",
                        39_000,
                        False,
                    )
                )
            rows.append((day * DAY + 11 * HOUR, MULE, "CASH", 36_000, True))
    rows.sort()
    return tuple(
        Payment(
            bank=BANK,
            tx_id=f"T{number:04}",
            time=START + time,
            amount=amount,
            currency="EUR",
            debtor=_end(payer),
            creditor=_end(payee),
            channel=Channel.ATM if cash else Channel.OTHER,
        )
        for number, (time, payer, payee, amount, cash) in enumerate(rows)
    )


def canonical_lines() -> bytes:
    """One canonical message a line."""
    return b"".join(canonical.encode(payment) + b"\n" for payment in payments())


def write_csv(folder: Path) -> tuple[Path, Path]:
    """The same payments as CSV, and the mapping that says what its columns mean."""
    from streams.publish import rfc3339

    lines = ["id,at,amount,payer,payee,payer_bank,payee_bank,how"]
    for p in payments():
        ends = [
            (party.account or "CASH", {BANK: "N", "other": "O"}.get(party.bank, ""))
            for party in (p.debtor, p.creditor)
        ]
        how = "cash" if p.channel == Channel.ATM else ""
        amount = f"{p.amount // 100}.{p.amount % 100:02}"
        lines.append(
            f"{p.tx_id},{rfc3339(p.time)},{amount},{ends[0][0]},{ends[1][0]},{ends[0][1]},{ends[1][1]},{how}"
        )
    file, mapping = folder / "payments.csv", folder / "sample.yaml"
    file.write_text("\n".join(lines) + "\n")
    mapping.write_text(MAPPING)
    return file, mapping
