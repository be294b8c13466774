"""The published JSON Schemas, generated from the types: `python -m streams.formats.schemas docs/schemas`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from streams.formats import canonical, mapping


def _schema(kind: type, identity: str, title: str) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identity,
        "title": title,
        **schema,
        "$defs": components,
    }


def documents() -> dict[str, str]:
    """File name → text of each published schema."""
    made = {
        "transaction.v1.schema.json": _schema(
            canonical.Transaction, canonical.SCHEMA_ID, "Safehold canonical transaction"
        ),
        "mapping.v1.schema.json": _schema(mapping.Mapping, mapping.SCHEMA_ID, "Safehold mapping file"),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in made.items()}


def main(folder: str) -> None:
    """Write them."""
    for name, text in documents().items():
        Path(folder, name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
