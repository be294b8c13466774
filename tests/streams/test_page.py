"""What a reviewer reads: proposal and reason first, every payment with its day and amount, nothing that the feed does not know."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from detectors.body import body_bytes
from streams.page import brief, page
from tests.core.test_body import ring


def body(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(body_bytes(ring()))
    return {**found, **changes}


def test_the_first_lines_say_what_for_whom_why_and_what_against() -> None:
    found = body()
    head = page(found).split("\n\n")[0]
    assert head.startswith("FREEZE, limited to an amount")
    names = [line[:9].strip() for line in head.splitlines()[2:] if line[:9].strip()]
    assert names == ["account", "propose", "why", "holder", "victims", "against", "when", "pattern"]
    assert found["subject_account"] in head
    assert "at most 780.00 EUR" in head.replace("\n         ", " ") or " EUR, for " in head
    assert "possibly the 12 people who paid in for the first time" in head.replace("\n         ", " ")


def test_every_payment_has_its_day_direction_and_amount() -> None:
    found = body()
    lines = page(found).splitlines()
    for payment in found["payments"]:
        (line,) = [line for line in lines if payment["tx_id"] in line and line.startswith("  2")]
        assert f"{payment['amount'] // 100}.00 EUR" in line
        assert f"  {'in' if payment['side'] == 'credit' else 'out'} " in line


def _words(text: str) -> str:
    return "".join(text.replace("─", "").split())


@pytest.mark.parametrize("width", [80, 72, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = page(body(), width).splitlines()
    assert max(map(len, lines)) == width  # the rule below the head, and nothing beyond it
    assert _words(page(body(), width)) == _words(page(body()))


def test_the_brief_is_the_top_of_the_page() -> None:
    found = body()
    assert page(found).startswith(brief(found) + "\n\nWhat speaks against it\n")
    assert all(
        f"  {number}  {reason['title']}: " in brief(found)
        for number, reason in enumerate(found["reasons"], 1)
    )


def test_a_feed_that_knows_the_day_shows_no_time_of_day() -> None:
    found = body(time_precision="day")
    for payment in found["payments"]:
        payment["precision"] = "day"
    assert "UTC" not in page(found)
    assert "UTC" in page(body())


@pytest.mark.parametrize(("days", "said"), [(1, "for 1 day, until"), (3, "for 3 days, until")])
def test_one_day_is_one_day(days: int, said: str) -> None:
    assert said in page(body(proposed_duration=days * 86_400_000_000)).replace("\n         ", " ")


def test_money_has_its_currency() -> None:
    found = body()
    assert " u " not in page(found)
    found["payments"][0]["currency"] = "SEK"
    text = " ".join(page(found).split())
    assert "300.00 EUR (equivalent) or more" in text
    assert "400.00 SEK" in text


def test_lawful_life_stands_by_indicator_and_once() -> None:
    found = body()
    text = " ".join(page(found).split())
    looks = {limit["text"].rstrip(".") for limit in found["limits"] if limit["code"] == "look-alike"}
    assert looks
    assert all(text.count(look) == 1 for look in looks)


def test_whoever_may_be_a_victim_is_named_from_role_and_indicator_alone() -> None:
    plain = {"reasons": [r for r in body()["reasons"] if r["indicator"] != "victim-collection-account"]}
    for role, said in (
        ("likely-victim", "probably the holder of this account"),
        ("payer", "possibly the holder, who pays flagged accounts"),
        ("mule", "the holder may have been recruited or forced"),
        ("controller", "nothing here says who"),
    ):
        assert said in " ".join(page(body(role=role, **plain)).split())


def test_an_account_that_is_not_judged_names_no_payment() -> None:
    found = body(payments=[], trigger_tx="")
    assert "Payments: none is named" in page(found)


def test_what_history_would_mend_names_the_setting() -> None:
    missing = [{"indicator": "fan-in", "reason": "history_too_short"}]
    said = " ".join(page(body(not_computable=missing)).split())
    assert "Not computed, history too short: fan in. Where accounts" in said
    assert "`observed_since`" in said
    other = [{"indicator": "fan-in", "reason": "detector_error"}]
    assert "`observed_since`" not in page(body(not_computable=other))
