"""docs/asyncapi.yaml: every topic, who writes and reads it, its headers and its payload. `make docs` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from detectors.model import ACTION_NAMES, ENGINE_VERSION
from streams import outputs, publish
from streams.formats import schemas
from streams.topics import TopicNames, wanted

BANK = "BANK"
SOURCE = "SOURCE"
_JSON = "application/json"
_TEXT = {"type": "string"}
_PSEUDONYM = {"type": "string", "pattern": "^[0-9a-f]{16}$"}


def _addresses() -> dict[str, str]:
    """Name of each topic in this document → its address."""
    names = TopicNames()
    return {
        "bankPayments": "{bankTopic}",
        "ledger": names.ledger,
        "review": names.review(BANK).replace(BANK, "{bank}"),
        "observe": names.observe,
        "hits": names.hits,
        "deadletters": names.deadletters,
        "vault": names.vault,
        "flags": names.flags,
        "accounts": names.accounts,
        "decisions": names.decisions,
        "config": names.config,
        "quarantine": names.quarantine,
    }


def _why() -> dict[str, str]:
    """Address → what the topic is for, as `streams.topics` says it."""
    specs = wanted(TopicNames(), partitions=1, banks=[BANK], sources=[SOURCE])
    return {
        spec.name.replace(SOURCE, "{bankTopic}").replace(BANK, "{bank}"): spec.why.replace(BANK, "the bank")
        for spec in specs
    }


def _header(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _cloud_event(kind: str, content: str) -> dict[str, Any]:
    return {
        "ce_specversion": _header("CloudEvents, binary mode", const="1.0"),
        "ce_type": _header("What the event is", const=kind),
        "ce_id": _header("Of a recommendation its id, the same for every revision; of hits the cause"),
        "ce_source": _header("/safehold/<generation>/<ledger partition>"),
        "content-type": _header("Of the value", const=content),
    }


_CAUSE = {
    publish.CAUSE: _header(
        "<generation>/<ledger partition>/<offset>/<index>: of one ce_id the message with the greatest cause counts",
        pattern="^[^/]+/[0-9]+/[0-9]+/[0-9]+$",
    )
}


_PLACE = (
    "<topic>/<partition>/<offset>/<index> of the record, index being that of the transaction in it; of a leg that is late or "
    "in conflict with -debit or -credit behind it"
)
_COORDINATE = "^[^/]+/[0-9]+/[0-9]+/[0-9]+(-debit|-credit)?$"


def _headers(properties: Mapping[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _message(
    title: str,
    summary: str,
    *,
    key: Any,
    payload: Any,
    content: str = _JSON,
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "name": title,
        "summary": summary,
        "contentType": content,
        **({"headers": headers} if headers else {}),
        "payload": payload,
        "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
    }


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"./schemas/{name}"}


def _bytes(description: str) -> dict[str, str]:
    return {"type": "string", "format": "binary", "description": description}


def _messages() -> dict[str, Any]:
    event = _cloud_event(outputs.RECOMMENDATION, _JSON)
    said = {
        **event,
        **_CAUSE,
        publish.ACTION: _header("The action of the body, for routing", enum=list(ACTION_NAMES[1:])),
        outputs.UNROUTED: _header(
            "Only on the observe topic: the account's bank has no review topic", const="true"
        ),
    }
    always = (*event, publish.CAUSE, publish.ACTION)
    hits = {**_cloud_event(outputs.HITS, outputs.MSGPACK.decode()), **_CAUSE}
    as_of = {
        publish.AS_OF: _header(
            "Append time in µs that a replay says the record had; else the broker's own", pattern="^[0-9]+$"
        )
    }
    letter = {
        publish.REASON: _header("Why it could not be used, out of a closed list"),
        publish.COORDINATE: _header(f"{_PLACE}; the key as well", pattern=_COORDINATE),
        publish.DETAIL: _header(
            "The place in the message, without the value that stood there. Of a message with several bad transactions that "
            "cannot be cut out: how many of each reason, and the first of them",
            maxLength=publish.LETTER_DETAIL_CHARACTERS,
        ),
        publish.RECEIVED: _header(
            "Append time of the bank's record, µs; 0 where it is not known", pattern="^[0-9]+$"
        ),
        publish.KEY: _header(
            f"The key of the bank's record, where it had one of at most {publish.LETTER_KEY_BYTES} bytes"
        ),
        publish.TRUNCATED: _header(
            f"Only where the value was longer than {publish.DEAD_LETTER_BYTES} bytes: its length before it was cut. Such a "
            "letter cannot be sent again",
            pattern="^[0-9]+$",
        ),
    }
    control = {"type": "string", "description": "Any; one partition keeps the order"}
    return {
        "transaction": _message(
            "Canonical transaction",
            "One payment, or an array of payments.",
            key=_TEXT,
            payload={
                "oneOf": [
                    _schema(schemas.TRANSACTION),
                    {"type": "array", "items": _schema(schemas.TRANSACTION)},
                ]
            },
            headers=_headers(as_of, ()),
        ),
        "iso20022": _message(
            "ISO 20022 message",
            "pacs.008 or camt.054 from version .001.08 on, many transactions a message (docs/formats.md).",
            key=_TEXT,
            content="application/xml",
            payload=_bytes("XML in UTF-8 without document type or entities"),
            headers=_headers(as_of, ()),
        ),
        "foreign": _message(
            "Foreign JSON",
            "A JSON object whose fields a mapping names (docs/formats.md, mapping.v1.schema.json).",
            key=_TEXT,
            payload={"type": "object"},
            headers=_headers(as_of, ()),
        ),
        "frame": _message(
            "Ledger frame",
            "Internal. A batch of records of one kind for one partition (streams/ledger.py).",
            key={"type": "null"},
            content="application/octet-stream",
            payload=_bytes("SHLF, layout, kind, header length, header (msgpack), rows or records"),
        ),
        "recommendation": _message(
            "Recommendation",
            "A recommendation was raised or revised. The value is the body and nothing else.",
            key=_PSEUDONYM,
            payload=_schema(schemas.RECOMMENDATION),
            headers=_headers(
                {**said, "ce_time": _header("Event time of the judged leg, RFC 3339")}, (*always, "ce_time")
            ),
        ),
        "withdrawal": _message(
            "Withdrawal",
            "The recommendation with this ce_id no longer stands. safehold-action is what it had been.",
            key=_PSEUDONYM,
            payload={"type": "object", "maxProperties": 0},
            headers=_headers(
                {**said, publish.WITHDRAWN: _header("It is withdrawn", const="true")},
                (*always, publish.WITHDRAWN),
            ),
        ),
        "hits": _message(
            "Hits",
            "Indicators that fired, by columns: n, detectors, and little-endian arrays subject (u8), leg (u8), time (i8), "
            "detector (i2, index into detectors), strength (i4, ppm). Of a leg that is judged again the greatest cause counts.",
            key={"type": "string", "description": "ledger partition"},
            content=outputs.MSGPACK.decode(),
            payload=_bytes("msgpack map"),
            headers=_headers(hits, tuple(hits)),
        ),
        "deadletter": _message(
            "Dead letter",
            "What could not be used, with its original bytes. Written twice it has the same key. One a transaction where the "
            "message is a JSON array, holding that transaction only; else one for the whole message.",
            key={"type": "string", "description": _PLACE, "pattern": _COORDINATE},
            content="application/octet-stream",
            payload=_bytes(
                f"as the bank sent it, the first {publish.DEAD_LETTER_BYTES} bytes; of a late or conflicting leg, its "
                "pseudonyms as JSON"
            ),
            headers=_headers(letter, (publish.REASON, publish.COORDINATE, publish.DETAIL, publish.RECEIVED)),
        ),
        "sealed": _message(
            "Sealed account",
            "Pseudonym to account number, AES-256-GCM (streams/vault.py). No value: erased.",
            key=_bytes("8 bytes, big endian: the pseudonym"),
            content="application/octet-stream",
            payload=_bytes("version, key id, nonce, ciphertext and tag"),
        ),
        "flag": _message("Flag", "A state of one flag.", key=control, payload=_schema(schemas.FLAG)),
        "account": _message(
            "Account",
            "What a bank says of one of its accounts.",
            key=control,
            payload=_schema(schemas.ACCOUNT),
        ),
        "decision": _message(
            "Decision",
            "What people decided of a recommendation. A freeze names two different people.",
            key=control,
            payload=_schema(schemas.DECISION),
        ),
        "configuration": _message(
            "Configuration",
            "A detector configuration (made by one person, approved by another), baselines, rates or a barrier.",
            key=control,
            payload=_schema(schemas.CONFIG),
        ),
        "quarantined": _message(
            "Quarantine of a ledger frame",
            "A frame stopped its partition (its worker says so); somebody signs that it is set aside, two different people are "
            "needed; what it became (its worker, before it goes on). Of one frame the first outcome counts.",
            key={"type": "string", "description": "<generation>/<ledger partition>/<offset>"},
            payload=_schema(schemas.QUARANTINE),
        ),
    }


_CARRIES: dict[str, tuple[str, ...]] = {
    "bankPayments": ("transaction", "iso20022", "foreign"),
    "ledger": ("frame",),
    "review": ("recommendation", "withdrawal"),
    "observe": ("recommendation", "withdrawal"),
    "hits": ("hits",),
    "deadletters": ("deadletter",),
    "vault": ("sealed",),
    "flags": ("flag",),
    "accounts": ("account",),
    "decisions": ("decision",),
    "config": ("configuration",),
    "quarantine": ("quarantined",),
}
_DOES: dict[str, tuple[str, ...]] = {
    "bankPayments": ("receive",),
    "ledger": ("send", "receive"),
    "review": ("send",),
    "observe": ("send",),
    "hits": ("send",),
    "deadletters": ("send",),
    "vault": ("send",),
    "flags": ("receive", "send"),
    "accounts": ("receive",),
    "decisions": ("receive",),
    "config": ("receive",),
    "quarantine": ("receive", "send"),
}
"""What the worker does. `safehold quarantine` writes the signatures. It sends to the flags topic where an expiry passes."""

_PARAMETERS: dict[str, Any] = {
    "bankPayments": {"bankTopic": {"description": "`topics[].name` of the settings"}},
    "review": {"bank": {"description": "`topics[].bank` of the settings"}},
}


def document() -> dict[str, Any]:
    """The document."""
    why = _why()
    channels = {
        name: {
            "address": address,
            "description": why[address],
            **({"parameters": _PARAMETERS[name]} if name in _PARAMETERS else {}),
            "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in _CARRIES[name]},
        }
        for name, address in _addresses().items()
    }
    operations = {
        f"{action}{name[0].upper()}{name[1:]}": {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
        }
        for name, actions in _DOES.items()
        for action in actions
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Safehold",
            "version": ENGINE_VERSION,
            "description": "The topics of a Safehold installation, as its worker sees them. The prefix `safehold` is a "
            "setting (`topic_prefix`). A topic's `.v1` changes by additions only: readers ignore what they do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages()},
    }


class _Plain(yaml.SafeDumper):
    """No anchors: a reader should not have to look for what a name stands for."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text() -> str:
    """The document as YAML."""
    body = yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    return "# Written by `make docs` from streams/asyncapi.py.\n" + body
