"""A worker on real Kafka and Redis: the answer is that of one process, and everything is accounted for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from streams import logs
from streams.formats import canonical
from tests.e2e.harness import PARTITIONS, Installation, balanced, bank_payments, expected, same

CODECS = (None, "gzip", "snappy", "lz4", "zstd")


async def test_the_answer_is_that_of_one_process_whatever_the_codec(
    install: Callable[..., Installation],
) -> None:
    installation = install()
    worker = installation.worker()
    payments, sent = bank_payments(), 0
    share = -(-len(payments) // len(CODECS))
    for number, codec in enumerate(CODECS):
        sent += await installation.send(payments[number * share : (number + 1) * share], compression=codec)
    assert sent == len(payments)
    assert len(expected().bodies) > 3
    await installation.as_one_process(expected(), sent)
    worker.stop()
    assert "stopped" not in worker.tail(100)
    records = [json.loads(line) for line in worker.log.read_text().splitlines()]
    (ready,) = [record for record in records if record["event"] == "ready"]
    assert ready["partitions"] == list(range(PARTITIONS))
    assert ready["mode"] == "advise"
    assert re.fullmatch("[0-9a-f]{32}", ready["digest"])
    assert ready["member"]
    chatty = [record for record in records if record["level"] == "info"]
    assert [record for record in chatty if record["logger"].partition(".")[0] in logs.CHATTY] == []


async def test_a_poisoned_message_costs_only_itself(install: Callable[..., Installation]) -> None:
    """Undecodable, empty, hostile, absurd, from the future: each in the middle of good ones."""
    payments = bank_payments()
    good = json.loads(canonical.encode(payments[0]))
    future = json.dumps(
        {**good, "transaction_id": "from-the-future", "acceptance_date_time": "2199-01-01T00:00:00Z"}
    ).encode()
    absurd = json.dumps({**good, "transaction_id": "absurd", "amount": "99999999999999999.00"}).encode()
    unknown = json.dumps({**good, "transaction_id": "no-such-money", "currency": "XXQ"}).encode()
    poison = [b"", b"\xff\xfe\x00", b"{", b"[" * 5_000, b"null", future, absurd, unknown, b'{"tx_id": 5}']

    def between(number: int) -> list[bytes]:
        return [poison[number // 100 % len(poison)]] if number % 100 == 50 else []

    installation = install()
    installation.worker()
    sent = await installation.send(payments, between=between)
    bad = sent - len(payments)
    assert bad > 2 * len(poison)
    counters = await installation.settled(sent)
    balanced(counters)
    assert counters["rejected"] == bad
    same({**counters, "received": counters["received"] - bad, "rejected": 0}, expected().counters)
    assert (await installation.latest()).bodies() == list(expected().bodies)
    letters = await installation.read(installation.names.deadletters)
    assert len({letter.key for letter in letters}) == len(letters) == bad
    reasons = {dict(letter.headers)["safehold-reason"] for letter in letters}
    assert {b"undecodable", b"future-dated", b"absurd-amount", b"unknown-currency"} <= reasons
    assert {letter.value for letter in letters} == set(poison)
