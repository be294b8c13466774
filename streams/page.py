"""A recommendation as a reviewer reads it, in plain text: what is proposed and why at the top, everything else below.

It shows what the body says. What it adds is only who may be a victim, from the role and the indicators (`_victims`).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectors.model import DAY, PPM
from detectors.render import points as say_points
from streams.currencies import EXPONENTS, decimal_text
from streams.publish import rfc3339

WIDTH = 80
SHOWN_PAYMENTS = 24
LOOK_ALIKE = "look-alike"
COLLECTS = "victim-collection-account"
REMEDIES = {
    "history too short": " Where accounts were seen whole for longer, `observed_since` of the mapping, the settings or the "
    "accounts file says so."
}
HEADS = {
    "monitor": "MONITOR: a place on the watch-list, no effect on the customer",
    "hold-and-review": "HOLD AND REVIEW: look at it before more money leaves",
    "freeze": "FREEZE, limited to an amount: two different people decide",
    "safeguard-first": "SAFEGUARD FIRST: block nothing this person lives on",
}
_UNITS = re.compile(r"(?<=\d) u\b")


def page(body: Mapping[str, Any], width: int = WIDTH) -> str:
    """One recommendation in full, in lines of at most `width` characters where words allow it."""
    lines = [*_top(body, width), *_why(body, width)]
    lines += ["", "What speaks against it"]
    against = [line for reason in body["mitigators"] for line in _reason(body, reason, "–", width)]
    lines += against or ["  nothing that Safehold can see"]
    lines += ["", "What would change this"]
    lines += _items((_money(body, change["text"]) for change in body["what_would_change_this"]), width)
    lines += ["", "What is not known", *_items(_unknown(body), width)]
    lines += ["", "Lawful life that can look like this: rule it out first", *_lawful(body, width)]
    lines += ["", *_payments(body), ""]
    runs = f"{body['config_version']}, digest {body['config_digest']}, engine {body['engine_version']}"
    for name, text in (
        ("recommendation", body["recommendation_id"]),
        *((("continues", body["continues"]),) if body["continues"] else ()),
        ("configuration", runs),
    ):
        lines += textwrap.wrap(text, width, initial_indent=f"{name:<15}", subsequent_indent=" " * 15)
    return "\n".join(lines)


def brief(body: Mapping[str, Any], width: int = WIDTH) -> str:
    """The top of the page: what is proposed, for whom, and why."""
    return "\n".join([*_top(body, width), *_why(body, width)])


def _top(body: Mapping[str, Any], width: int) -> list[str]:
    lines = [*textwrap.wrap(HEADS.get(body["action"], body["action"]), width), "─" * width]
    for name, text in _summary(body):
        lines += textwrap.wrap(text, width, initial_indent=f"{name:<9}", subsequent_indent=" " * 9)
    return lines


def _why(body: Mapping[str, Any], width: int) -> list[str]:
    lines = ["", *textwrap.wrap(f"Why: {_total(body)}", width)]
    for number, reason in enumerate(body["reasons"], 1):
        lines += _reason(body, reason, f"{number}", width)
    return lines


def moment(time: int, precision: str = "exact") -> str:
    """`2024-10-31 14:02 UTC`; of a feed that knows the day only, the day."""
    text = rfc3339(time)[:16].replace("T", " ")
    return text[:10] if precision == "day" else f"{text} UTC"


def _precision(body: Mapping[str, Any]) -> str:
    return str(body.get("time_precision", "exact"))


def _summary(body: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "account", f"{body['subject_account']} at {body['bank']}"
    yield "propose", _proposal(body)
    yield "why", "; ".join(reason["title"].lower() for reason in body["reasons"])
    yield "holder", _role(body)
    yield "victims", _victims(body)
    against = [reason["title"].lower() for reason in body["mitigators"]]
    yield "against", "; ".join(against) or "nothing that Safehold can see"
    yield "when", _when(body)
    yield "pattern", body["typology_title"]


def _proposal(body: Mapping[str, Any]) -> str:
    until = moment(body["expires_at"], _precision(body))
    lasts = f"{_days(body['proposed_duration'] // DAY)}, until {until}"
    if body["action"] not in ("hold-and-review", "freeze"):
        return f"no amount; to be looked at for {lasts}"
    carve = body["essential_carve_out"]
    keep = ", ".join(str(kind).replace("-", " ") for kind in carve["keep"])
    essentials = _money(body, f"{carve['amount_u'] // 100:,} u")
    return (
        f"at most {_amount(body['amount_limit'], body['currency'])}, for {lasts}. Reachable all the while: "
        f"{essentials} for {_days(carve['days'])}, and {keep}"
    )


def _role(body: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{item['role']} {item['share'] * 100 // PPM} %" for item in body["role_hypotheses"])
    probably = "role unknown" if body["role"] == "unknown" else f"probably {body['role'].replace('-', ' ')}"
    return probably + (f" (hints: {shares})" if shares else "")


def _victims(body: Mapping[str, Any]) -> str:
    """Who may be a victim. Whether a mule knows what they do is never guessed."""
    found = []
    if body["role"] == "likely-victim" or body["action"] == "safeguard-first":
        found.append("probably the holder of this account")
    elif body["role"] == "payer":
        found.append("possibly the holder, who pays flagged accounts")
    for reason in body["reasons"]:
        if reason["indicator"] == COLLECTS:
            payers = {value["measure"]: value["value"] for value in reason["observed"]}.get(
                "collect_payers", 0
            )
            found.append(f"possibly the {payers} people who paid in for the first time")
    if body["role"] == "mule":
        found.append("the holder may have been recruited or forced")
    return "; ".join(found) or "nothing here says who"


def _when(body: Mapping[str, Any]) -> str:
    when = moment(body["event_time"], _precision(body))
    for payment in body.get("payments", ()):
        if payment["tx_id"] == body["trigger_tx"]:
            went = "came in" if payment["side"] == "credit" else "went out"
            amount = _amount(payment["amount"], payment["currency"])
            return f"{when}, when {amount} {went} (transaction {body['trigger_tx']})"
    return f"{when}, at transaction {body['trigger_tx']}" if body["trigger_tx"] else f"from {when} on"


def _total(body: Mapping[str, Any]) -> str:
    low, high = say_points(body["points_low"]), say_points(body["points_high"])
    total = f"{high} points" if low == high else f"{low} to {high} points, by what unknown counterparties are"
    margin = next((c["points"] for c in body["what_would_change_this"] if c["kind"] == "margin"), None)
    if margin is not None:
        said = body["points_high"] if body["action"] == "monitor" else body["points_low"]
        total += f", {say_points(said - margin)} are needed"
    families = ", ".join(f"{name} {say_points(value)}" for name, value in body["points_by_family"].items())
    return total + (f" ({families})" if families else "") + ". Thresholds stand in brackets."


def _reason(body: Mapping[str, Any], reason: Mapping[str, Any], mark: str, width: int) -> list[str]:
    points = say_points(reason["points"])
    head = f"  {mark}  {reason['title']}: {points} point{'' if points == '1' else 's'}"
    text = textwrap.wrap(_money(body, reason["plain_sentence"]), width - 5)
    text += textwrap.wrap(_evidence(body, reason), width - 5)
    return [head, *(f"     {line}" for line in text)]


def _evidence(body: Mapping[str, Any], reason: Mapping[str, Any]) -> str:
    """How many payments, of which days, and how much in and out."""
    ids = set(reason["tx_ids"])
    if not ids:
        return ""
    cited = [payment for payment in body.get("payments", ()) if payment["tx_id"] in ids]
    count = f"{len(ids)}{' newest' if reason['truncated'] else ''} payment{'s' if len(ids) > 1 else ''}"
    if not cited:
        return f"{count}: {', '.join(reason['tx_ids'][-3:])}"
    first, last = (moment(cited[at]["time"], "day") for at in (0, -1))
    parts = [count + (f", {first}" if first == last else f", {first} to {last}")]
    for side, word in (("credit", "in"), ("debit", "out")):
        totals: dict[str, int] = {}
        for payment in cited:
            if payment["side"] == side:
                totals[payment["currency"]] = totals.get(payment["currency"], 0) + payment["amount"]
        if totals:
            parts.append(
                f"{word} {', '.join(_amount(total, code) for code, total in sorted(totals.items()))}"
            )
    return "; ".join(parts)


def _unknown(body: Mapping[str, Any]) -> Iterable[str]:
    texts = [_money(body, limit["text"]) for limit in body["limits"] if limit["code"] != LOOK_ALIKE]
    missing: dict[str, list[str]] = {}
    for item in body["not_computable"]:
        missing.setdefault(item["reason"].replace("_", " "), []).append(item["indicator"].replace("-", " "))
    texts += [
        f"Not computed, {why}: {', '.join(names)}.{REMEDIES.get(why, '')}" for why, names in missing.items()
    ]
    return dict.fromkeys(texts)


def _lawful(body: Mapping[str, Any], width: int) -> list[str]:
    """By indicator: a reviewer looks at one at a time."""
    titles = {reason["indicator"]: reason["title"] for reason in body["reasons"]}
    titles[body["typology"]] = body["typology_title"]
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for limit in body["limits"]:
        text = limit["text"].rstrip(".")
        if limit["code"] == LOOK_ALIKE and text not in seen:
            seen.add(text)
            found.setdefault(limit["indicator"], []).append(text)
    return _items((f"{titles.get(name, name)}: {'; '.join(texts)}." for name, texts in found.items()), width)


def _payments(body: Mapping[str, Any]) -> list[str]:
    """The payments themselves, newest first, each with the numbers of its reasons."""
    payments: Sequence[Mapping[str, Any]] = body.get("payments", ())
    if not payments:
        return ["Payments: none is named"]
    marks: dict[str, list[str]] = {}
    for number, reason in enumerate(body["reasons"], 1):
        for tx_id in reason["tx_ids"]:
            marks.setdefault(tx_id, []).append(str(number))
    shown = list(reversed(payments))[:SHOWN_PAYMENTS]
    rows = [
        (
            moment(payment["time"], payment["precision"]),
            "in" if payment["side"] == "credit" else "out",
            _amount(payment["amount"], payment["currency"]),
            payment["tx_id"],
            ",".join(marks.get(payment["tx_id"], ["–"])),
        )
        for payment in shown
    ]
    wide = [max(len(row[at]) for row in rows) for at in range(5)]
    lines = [f"Payments ({len(payments)}), newest first; the last column is the number of the reason"]
    lines += [
        f"  {row[0]:<{wide[0]}}  {row[1]:<3}  {row[2]:>{wide[2]}}  {row[3]:<{wide[3]}}  {row[4]}"
        for row in rows
    ]
    if len(payments) > len(shown):
        lines.append(f"  … and {len(payments) - len(shown)} older: safehold explain … --json has them all")
    return lines


def _amount(minor: int, currency: str) -> str:
    """`7,247.30 EUR`."""
    whole, point, rest = decimal_text(minor, EXPONENTS.get(currency, 2)).partition(".")
    return f"{int(whole):,}{point}{rest} {currency}"


def _money(body: Mapping[str, Any], text: str) -> str:
    """Sums over currencies are in u: EUR where everything here is, else its equivalent."""
    currencies = {payment["currency"] for payment in body.get("payments", ())} or {body["currency"]}
    return _UNITS.sub(" EUR" if currencies == {"EUR"} else " EUR (equivalent)", text)


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


def _items(texts: Iterable[str], width: int) -> list[str]:
    lines: list[str] = []
    for text in texts:
        lines += textwrap.wrap(text, width, initial_indent="  · ", subsequent_indent="    ")
    return lines or ["  nothing"]
