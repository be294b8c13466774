"""A recommendation as a reviewer reads it, in plain text. It shows what the body says and adds nothing to it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectors.model import DAY, PPM
from detectors.render import points as say_points
from streams.currencies import EXPONENTS, decimal_text
from streams.publish import rfc3339

WIDTH = 104
SHOWN_TRANSACTIONS = 6
LOOK_ALIKE = "look-alike"
HEADS = {
    "monitor": "MONITOR: a place on the watch-list, no effect on the customer",
    "hold-and-review": "HOLD AND REVIEW: look at it before more money leaves",
    "freeze": "FREEZE, limited to an amount: two different people decide",
    "safeguard-first": "SAFEGUARD FIRST: this account's holder may be a victim; block nothing they live on",
}


def page(body: Mapping[str, Any]) -> str:
    """One recommendation in full."""
    lines = [HEADS.get(body["action"], body["action"]), "─" * WIDTH]
    lines += _facts(
        ("account", f"{body['subject_account']} at {body['bank']}"),
        (
            "when",
            f"{moment(body['event_time'])}, at transaction {body['trigger_tx']} ({body['trigger_side']})",
        ),
        ("pattern", body["typology_title"]),
        ("holder", _role(body)),
        ("amount", _amount(body)),
        ("until", f"{moment(body['expires_at'])} at the latest ({body['proposed_duration'] // DAY} days)"),
        ("id", body["recommendation_id"] + (f", continues {body['continues']}" if body["continues"] else "")),
    )
    lines += ["", f"Why ({_total(body)})"]
    for reason in body["reasons"]:
        lines += _reason(reason)
    lines += ["", "What speaks against it"]
    lines += [line for reason in body["mitigators"] for line in _reason(reason)] or [
        "  nothing that Safehold can see"
    ]
    lines += ["", "What would change this"]
    lines += _items(change["text"] for change in body["what_would_change_this"])
    unknown = [limit["text"] for limit in body["limits"] if limit["code"] != LOOK_ALIKE]
    missing = [f"{item['indicator']} ({item['reason'].replace('_', ' ')})" for item in body["not_computable"]]
    if missing:
        unknown.append(f"Could not be computed: {', '.join(missing)}.")
    lines += ["", "What is not known", *_items(dict.fromkeys(unknown))]
    lawful = dict.fromkeys(
        limit["text"].rstrip(".") for limit in body["limits"] if limit["code"] == LOOK_ALIKE
    )
    lines += ["", "Lawful life that can look like this, to be ruled out", *_run(lawful)]
    lines += [
        "",
        f"configuration {body['config_version']}, digest {body['config_digest']}, engine {body['engine_version']}",
    ]
    return "\n".join(lines)


def moment(time: int) -> str:
    """`2024-10-31 14:02 UTC`."""
    return rfc3339(time)[:16].replace("T", " ") + " UTC"


def one_line(body: Mapping[str, Any]) -> str:
    """The shortest way to say it."""
    reasons = ", ".join(reason["indicator"] for reason in body["reasons"])
    return f"{body['action']} · {body['subject_account']} · {moment(body['event_time'])} · {reasons}"


def _facts(*facts: tuple[str, str]) -> list[str]:
    return [f"{name:<9}{text}" for name, text in facts]


def _role(body: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{item['role']} {item['share'] * 100 // PPM} %" for item in body["role_hypotheses"])
    return (
        f"probably {body['role']}" + (f" (hints: {shares})" if shares else "")
        if body["role"] != "unknown"
        else ("role unknown" + (f" (hints: {shares})" if shares else ""))
    )


def _amount(body: Mapping[str, Any]) -> str:
    carve = body["essential_carve_out"]
    keep = ", ".join(str(kind).replace("-", " ") for kind in carve["keep"])
    essentials = f"{carve['amount_u'] // 100:,} u for {carve['days']} days stay reachable, and {keep}"
    if body["action"] not in ("hold-and-review", "freeze"):
        return "none is named at this level"
    currency = body["currency"]
    limit = decimal_text(body["amount_limit"], EXPONENTS.get(currency, 2))
    return f"at most {limit} {currency}; {essentials}"


def _total(body: Mapping[str, Any]) -> str:
    low, high = say_points(body["points_low"]), say_points(body["points_high"])
    total = f"{high} points" if low == high else f"{low} to {high} points, by what unknown counterparties are"
    families = ", ".join(f"{name} {say_points(value)}" for name, value in body["points_by_family"].items())
    return f"{total}: {families}"


def _reason(reason: Mapping[str, Any]) -> list[str]:
    head = (
        f"  {say_points(reason['points']):>5}  {reason['title']} [{reason['indicator']}, {reason['family']}]"
    )
    text = textwrap.wrap(reason["plain_sentence"], WIDTH - 9)
    return [head, *(f"         {line}" for line in text), f"         {_evidence(reason)}"]


def _evidence(reason: Mapping[str, Any]) -> str:
    ids: Sequence[str] = reason["tx_ids"]
    shown = ", ".join(ids[-SHOWN_TRANSACTIONS:])
    more = len(ids) - SHOWN_TRANSACTIONS
    count = f"{len(ids)}{' newest' if reason['truncated'] else ''}"
    return f"transactions ({count}): " + (f"… {shown}" if more > 0 else shown)


def _items(texts: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for text in texts:
        lines += textwrap.wrap(text, WIDTH - 4, initial_indent="  · ", subsequent_indent="    ")
    return lines or ["  nothing"]


def _run(texts: Iterable[str]) -> list[str]:
    """Many short texts in a paragraph."""
    return textwrap.wrap(" · ".join(texts), WIDTH, initial_indent="  ", subsequent_indent="  ") or [
        "  nothing"
    ]
