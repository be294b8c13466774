"""Mapping files: every problem at once, where it stands."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from detectors.model import DAY, HOUR
from streams.formats.mapping import load_mapping, mappings
from streams.located import Misplaced, load
from streams.rates import load_rates

GOOD = """\
version: 1
name: mine
about: a test
bank: own
booked: true
columns: {transaction: id, time: t, amount: a, debtor: d, creditor: c}
time: {precision: exact}
currency: EUR
"""


def write(tmp_path: Path, text: str) -> Path:
    """A mapping file."""
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(tmp_path: Path, text: str) -> list[str]:
    """What is wrong with it, without the folder."""
    with pytest.raises(Misplaced) as caught:
        load_mapping(write(tmp_path, text))
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_a_good_one(tmp_path: Path) -> None:
    mapping = load_mapping(write(tmp_path, GOOD + "lateness: 4d\nobserved_since: '2024-01-02'\n"))
    assert (mapping.lateness_us, mapping.observed_since_us) == (4 * DAY, 19_724 * DAY)
    plain = load_mapping(write(tmp_path, GOOD))
    assert (plain.lateness_us, plain.observed_since_us) == (6 * HOUR, None)


def test_all_problems_of_shape_at_once_each_at_its_place(tmp_path: Path) -> None:
    text = """\
version: 2
name: Mine
bank: NO
booked: maybe
colums: {}
columns:
  transaction: id
  time: 7
  amount: a
time: {precision: minut}
amount: {scale: 0, unit: major}
rules:
  - when: {account: [x, no]}
    set: {chanel: card}
"""
    assert problems(tmp_path, text) == [
        "mine.yaml:1:1: version: must be one of 1",
        "mine.yaml:2:1: name: must match ^[a-z0-9][a-z0-9_-]{0,40}$",
        "mine.yaml:3:1: bank: must be text: quote it ('NO')",
        "mine.yaml:4:1: booked: must be true or false",
        "mine.yaml:5:1: colums: not a known field (did you mean columns?)",
        "mine.yaml:8:3: columns.time: must be text: quote it ('7')",
        "mine.yaml:10:8: time.precision: must be one of day, exact, hour, minute (did you mean minute?)",
        "mine.yaml:11:10: amount.scale: must lie in 1..1000000",
        "mine.yaml:13:25: rules[0].when.account[1]: must be text: quote it ('no')",
        "mine.yaml:14:11: rules[0].set.chanel: not a known field (did you mean channel?)",
        "mine.yaml:1:1: about is missing",
    ]


def test_all_problems_of_meaning_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("EUR", "EUX").replace(
        "{precision: exact}", "{precision: exact, zone: Mars/Base, format: steps}"
    ) + (
        "lateness: soon\nobserved_since: once\ndelimiter: ';;'\n"
        "rules:\n  - when: {kind: x}\n    set: {}\n  - when: {account: {pattern: '('}}\n    set: {channel: card}\n"
        "  - when: {debtor: x}\n    set: {party: {type: cash}}\n"
    )
    assert problems(tmp_path, text) == [
        "mine.yaml:9:1: lateness: must be a number and a unit out of s, m, h, d (for example 6h)",
        "mine.yaml:10:1: observed_since: must be first-record or a date such as 2024-01-31",
        "mine.yaml:7:26: time.zone: 'Mars/Base' is not a time zone such as Europe/Berlin",
        "mine.yaml:7:1: time.origin: steps need an origin (a date) and a precision of minute, hour or day",
        "mine.yaml:8:1: currency: not a currency of ISO 4217",
        "mine.yaml:11:1: delimiter: must be one character",
        "mine.yaml:13:12: rules[0].when.kind: neither a field with a column nor listed in columns.extra",
        "mine.yaml:14:5: rules[0].set: sets nothing",
        "mine.yaml:15:22: rules[1].when.account.pattern: not a regular expression: "
        "missing ), unterminated subpattern at position 0",
        "mine.yaml:18:11: rules[2].set.party: needs when.account",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("debtor: d, creditor: c", "debtor: d", "needs debtor and creditor, or account"),
        ("debtor: d, creditor: c", "account: d", "exactly one of amount.sign and columns.direction"),
        (
            "debtor: d, creditor: c",
            "debtor: d, creditor: c, account: e",
            "needs debtor and creditor, or account",
        ),
        ("debtor: d, creditor: c", "debtor: d, creditor: c, direction: e", "go with columns.account"),
        ("currency: EUR", "", "missing: neither here nor in columns"),
        ("version: 1", "version: 1\nversion: 1", "written twice"),
        ("version: 1", "version: [1", "expected ',' or ']'"),
        ("version: 1", "- 1", ""),
        (GOOD, "", "empty"),
        (GOOD, "- 1\n", "must be a mapping"),
    ],
)
def test_other_problems(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert any(problem in line for line in problems(tmp_path, GOOD.replace(old, new)))


def test_names_and_paths() -> None:
    assert mappings() == ["amlgentex", "amlsim", "berka", "handbook", "paysim"]
    for name in mappings():
        mapping = load_mapping(name)
        assert mapping.name == name
        assert mapping.booked
        assert mapping.observed_since == "first-record"
        assert mapping.currency in load_rates().u_micro
    with pytest.raises(Misplaced, match="neither a file nor one of amlgentex, amlsim"):
        load_mapping("amlgentx")
    with pytest.raises(Misplaced):
        load_mapping("no/such/file.yaml")


class _Optional(msgspec.Struct):
    a: int | None = None
    b: tuple[str, ...] = ()


def test_located_reads_unions_and_lists() -> None:
    assert load("a: null\nb: [x]", _Optional, "f").value == _Optional(None, ("x",))
    with pytest.raises(Misplaced, match=r"f:2:1: b: must be a list"):
        load("a: 1\nb: {x: y}", _Optional, "f")
    with pytest.raises(Misplaced, match=r"f:1:1: 1: a key must be text"):
        load("1: x", _Optional, "f")
