"""What a message brings besides its value."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from streams import intake
from streams.block import Refused, as_of
from streams.formats import canonical, iso20022
from streams.intake import letters_of
from streams.payment import DecodeContext, Reason, Rejected
from streams.publish import AS_OF, DEAD_LETTER_BYTES, DETAIL, KEY, TRUNCATED
from tests.streams.assembled import assembled
from tests.streams.formats import messages

OWN = DecodeContext(bank="own")


@pytest.mark.parametrize("value", [None, b"", b"yesterday", b"-1", b"9" * 17, b"9" * 5_000])
def test_a_header_that_is_no_moment_does_not_count(value: bytes | None) -> None:
    assert as_of([("other", b"7"), (AS_OF, value)], 5) == 5


def test_the_moment_of_a_replay_counts() -> None:
    assert as_of([("other", None), (AS_OF, b"1700000000000000")], 5) == 1_700_000_000_000_000


# -- dead letters ---------------------------------------------------------------------------------------------------------


def test_a_letter_holds_its_own_transaction_only() -> None:
    items = [{"transaction_id": str(n), "amount": "x" * 1_000} for n in range(500)]
    value = json.dumps(items).encode()
    refused = canonical.decode(value, OWN)
    letters = letters_of("dead", "t/0", Refused(7, 5, value, b"k", len(refused), refused))
    assert [letter.key for letter in letters] == [b"t/0/7/%d" % n for n in range(500)]
    assert [json.loads(letter.value) for letter in letters] == items
    # Each can be sent again: it is refused for the same reason as before, not as something else.
    for letter, before in zip(letters, refused, strict=True):
        (again,) = canonical.decode(letter.value, OWN)
        assert (again.reason, again.detail) == (before.reason, before.detail)
    assert sum(len(letter.value) for letter in letters) < len(value)


def test_what_cannot_be_cut_is_one_letter_that_lists() -> None:
    value = messages.pacs008(*(messages.transfer(n % 90, currency="???") for n in range(400)))
    refused = iso20022.decode(value, OWN)
    assert len(refused) == 400
    (letter,) = letters_of("dead", "t/0", Refused(7, 5, value, None, len(refused), refused))
    assert (letter.key, letter.value) == (b"t/0/7/0", value)
    detail = dict(letter.headers)[DETAIL]
    assert detail.startswith(b"400 transactions: unknown-currency 400; 0 unknown-currency IntrBkSttlmAmt")
    assert detail.endswith(b"; and 380 more")


def test_a_message_refused_whole_is_one_letter() -> None:
    value = b"[" + b",".join([b"{}"] * 4) + b"]"
    whole = [Rejected(Reason.OVERSIZED, "more than 3 transactions")]
    (letter,) = letters_of("dead", "t/0", Refused(1, 0, value, None, len(whole), whole))
    assert letter.value == value


def test_no_letter_grows_with_what_it_is_about() -> None:
    value = b"<" * 3_000_000
    detail = "d" * 100_000  # one string: a hundred thousand of them would be 10 GB
    refused = [Rejected(Reason.INVALID, detail, n) for n in range(100_000)]
    (letter,) = letters_of(
        "dead", "t" * 249 + "/0", Refused(1, 0, value, b"k" * 2_000_000, len(refused), refused)
    )
    assert dict(letter.headers)[TRUNCATED] == b"3000000"
    assert KEY not in dict(letter.headers)
    assert len(letter.value) == DEAD_LETTER_BYTES
    assert sum(len(text) for _, text in letter.headers) + len(letter.key) < 20_000
    assert intake.listed(refused).endswith("and 99980 more")


@pytest.mark.parametrize(("silent", "stuck"), [(44.0, False), (46.0, True)])
async def test_a_source_is_stuck_after_the_time_that_is_set(
    tmp_path: Path, silent: float, stuck: bool
) -> None:
    parts = assembled(tmp_path, SAFEHOLD_STUCK_AFTER="45s")
    intake = parts.intake
    await intake.assigned({TopicPartition("bank-a.payments", 0)})
    (queue,) = intake._sources.queues.values()
    queue.moved_at = time.monotonic() - silent
    intake._watch_stuck()
    assert queue.stuck is stuck
    assert (b"safehold_intake_stuck{" in parts.metrics.render()) is stuck
