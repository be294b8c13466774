"""What `safehold dlq replay` sends again, and what it does not."""

from __future__ import annotations

from detectors.model import HOUR
from detectors.step import Cause, Listed
from streams.block import Refused, as_of
from streams.cli.exits import Exit
from streams.formats import canonical
from streams.intake import letters_of
from streams.legs import LegBuilder, coordinate
from streams.outputs import Outputs
from streams.payment import DecodeContext, Party, Payment, Reason, Rejected
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.publish import DEAD_LETTER_BYTES, Message
from streams.rates import load_rates
from tests.cli.conftest import BANK, Installation

SENT = 1_700_000_000_000_000
"""When the bank's records of these tests were appended, µs."""


def _letters(installation: Installation, offset: int, value: bytes, *refused: Rejected) -> list[Message]:
    message = Refused(offset, SENT, value, b"k", len(refused), refused)
    return letters_of(installation.names.deadletters, f"{installation.source}/1", message)


def _listed(installation: Installation) -> list[Message]:
    said = [
        Listed(
            cause=Cause(7, 0), reason=reason, subject=1, leg=side, time=9, source=f"{installation.source}/1",
            coordinate=coordinate(90, 0, side),
        )
        for side, reason in enumerate(("late", "conflict"))
    ]  # fmt: skip
    return Outputs(installation.names, "g1", [])(0, said).messages


def test_what_holds_no_message_is_refused_and_the_rest_is_sent(cli, installation: Installation) -> None:
    invalid = Rejected(Reason.INVALID, "why")
    installation.send(
        *_letters(installation, 1, b"<" * (DEAD_LETTER_BYTES + 1), invalid),
        *_letters(installation, 2, b"{}", invalid),
        *_listed(installation),
    )
    everything = cli("dlq", "list", "-s", installation.settings, "--json").json["letters"]
    assert len(everything) == 4
    names = [letter["coordinate"] for letter in everything]
    ran = cli("dlq", "replay", *names, "-s", installation.settings)
    assert ran.code == Exit.OK
    assert (
        "3 letters hold no whole message and cannot be sent again: conflict 1, late 1, truncated 1" in ran.out
    )
    (record,) = installation.read(installation.source)
    assert record.value == b"{}"
    late = cli("dlq", "replay", "--reason", "late", "-s", installation.settings, "--json")
    assert (late.code, late.json) == (Exit.FAILED, {"sent": 0, "messages": [], "refused": {"late": 1}})


def test_each_transaction_of_an_array_is_sent_and_a_message_once(cli, installation: Installation) -> None:
    two = [Rejected(Reason.INVALID, "why", 0), Rejected(Reason.NO_RATE, "why", 1)]
    installation.send(
        *_letters(installation, 1, b'[{"n":1},{"n":2}]', *two), *_letters(installation, 2, b"<two/>", *two)
    )
    listed = cli("dlq", "list", "-s", installation.settings, "--json").json
    assert (listed["total"], listed["by_reason"]) == (3, {"invalid": 2, "no-rate": 2})
    for reason, sent in (("no-rate", 2), ("invalid", 2)):
        ran = cli("dlq", "replay", "--reason", reason, "-s", installation.settings, "--json")
        assert ran.json["sent"] == sent
    values = [record.value for record in installation.read(installation.source)]
    assert sorted(values) == [b"<two/>", b"<two/>", b'{"n":1}', b'{"n":2}']


def test_a_replay_is_judged_by_when_the_bank_sent_it(cli, installation: Installation) -> None:
    """Dated two hours ahead of its record it stays refused, however much later it comes again."""
    payment = Payment(BANK, "t", SENT + 2 * HOUR, 100, "EUR", Party("a", BANK), Party("b", BANK))
    builder = LegBuilder(1, Pseudonyms(PUBLIC_KEY), load_rates().u_micro)
    refused = builder.add([payment], f"{installation.source}/1", 3, SENT)
    assert [item.reason for item in refused] == [Reason.FUTURE_DATED]
    installation.send(*_letters(installation, 3, canonical.encode(payment), *refused))
    assert cli("dlq", "replay", "--reason", "future-dated", "-s", installation.settings).code == Exit.OK
    (record,) = installation.read(installation.source)
    appended = record.timestamp * 1000
    received = as_of(record.headers, appended)
    assert received == SENT < appended
    items = canonical.decode(record.value, DecodeContext(bank=BANK))
    assert [item.reason for item in builder.add(items, "t/0", 0, received)] == [Reason.FUTURE_DATED]
    assert builder.add(items, "t/0", 1, appended) == []
