"""The published JSON Schemas, generated from the types: `make docs` writes them into docs/schemas."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from detectors import body
from detectors.model import ACTION_NAMES
from streams import controls, quarantine
from streams.formats import canonical, mapping

RECOMMENDATION = "recommendation.v1.schema.json"
TRANSACTION = "transaction.v1.schema.json"
MAPPING = "mapping.v1.schema.json"
FLAG = "flag.v1.schema.json"
ACCOUNT = "account.v1.schema.json"
DECISION = "decision.v1.schema.json"
CONFIG = "config.v1.schema.json"
QUARANTINE = "quarantine.v1.schema.json"

_UNITS = {
    "event_time": "µs since 1970, UTC",
    "amount_limit": "minor units of `currency`",
    "amount_u": "u-cents; 100 = 1 u",
    "amount": "minor units of `currency`",
    "time": "µs since 1970, UTC",
    "precision": "how finely the time is known: exact, minute, hour, day",
    "time_precision": "how finely `event_time` is known: exact, minute, hour, day",
    "proposed_duration": "µs",
    "expires_at": "µs since 1970, UTC",
    "points": "millionths of a point",
    "points_low": "millionths of a point",
    "points_high": "millionths of a point",
    "points_by_family": "millionths of a point, after the family's cap",
    "role_confidence": "parts per million",
    "share": "parts per million",
    "strength": "parts per million",
    "window_from": "µs since 1970, UTC; not part of the window",
    "window_to": "µs since 1970, UTC; part of the window",
    "threshold": "in the unit of what it is compared with",
    "subject_account": "pseudonym, 16 hexadecimal digits",
    "trigger_tx": "pseudonym, 16 hexadecimal digits; empty where no single transaction triggered it",
    "tx_ids": "pseudonyms of the transactions that carry the reason",
    "recommendation_id": "the same for every revision of one recommendation",
    "continues": "id of the recommendation of the bucket before; empty where there is none",
}
"""What the numbers and ids of a body are in."""


def _schema(kind: Any, title: str, identity: str = "") -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **({"$id": identity} if identity else {}),
        "title": title,
        **schema,
        "$defs": components,
    }


def _recommendation() -> dict[str, Any]:
    schema = _schema(body.Body, "Safehold recommendation, the body")
    unused = set(_UNITS)
    for component in schema["$defs"].values():
        for name, value in component["properties"].items():
            if name in _UNITS:
                value["description"] = _UNITS[name]
                unused.discard(name)
    if unused:
        raise ValueError(f"no field of a body is called {sorted(unused)}")
    fields = schema["$defs"]["Body"]["properties"]
    fields["action"] = {"enum": list(ACTION_NAMES[1:])}
    return schema


def documents() -> dict[str, str]:
    """File name → text of each published schema."""
    made = {
        TRANSACTION: _schema(canonical.Transaction, "Safehold canonical transaction", canonical.SCHEMA_ID),
        MAPPING: _schema(mapping.Mapping, "Safehold mapping file", mapping.SCHEMA_ID),
        RECOMMENDATION: _recommendation(),
        FLAG: _schema(controls.FlagMessage, "Safehold flag: one state of one flag"),
        ACCOUNT: _schema(controls.AccountMessage, "Safehold account: what a bank says of it"),
        DECISION: _schema(controls.DecisionMessage, "Safehold decision"),
        CONFIG: _schema(
            controls.ConfigMessage, "Safehold configuration, baselines, rates or barrier: `kind` says which"
        ),
        QUARANTINE: _schema(
            quarantine.Said,
            "Safehold quarantine: `record` says whether a frame stopped its partition, was signed for, or what it became",
        ),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in made.items()}


def main(folder: str) -> None:
    """Write them."""
    for name, text in documents().items():
        Path(folder, name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
