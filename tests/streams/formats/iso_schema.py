"""What ISO 20022's own schema says of a message, from classes that `pyiso20022` generated from the XSDs.

A class holds the elements of a complex type in the order of the schema's sequence, with name, how often, and the facets of
texts. What a class does not say is that of a choice one alternative stands alone; the standard names such types `…Choice`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import types
import typing
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

from lxml import etree
from xsdata.models.datatype import XmlDate, XmlDateTime

SCALARS = (str, bool, int, float, Decimal, XmlDate, XmlDateTime)


def problems(message: bytes) -> list[str]:
    """Where a message differs from the schema that its namespace names, as `path: what`. Empty: nowhere."""
    root = etree.fromstring(message)
    name = etree.QName(root)
    kind = (name.namespace or "").rpartition(":")[2]
    module = importlib.import_module(
        f"pyiso20022.{kind[:4]}.{kind.replace('.', '_')}.{kind.replace('.', '_')}"
    )
    return list(_element(root, module.Document, name.localname))


@functools.cache
def _fields(cls: type) -> list[tuple[dataclasses.Field[Any], type, bool]]:
    """Field, type of one occurrence, and whether it may come several times."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        hint, several = hints[field.name], False
        if typing.get_origin(hint) is list:
            (hint,), several = typing.get_args(hint), True
        if isinstance(hint, types.UnionType):
            (hint,) = [each for each in typing.get_args(hint) if each is not types.NoneType]
        found.append((field, hint, several))
    return found


def _element(node: etree._Element, cls: type, path: str) -> Iterator[str]:
    if not dataclasses.is_dataclass(cls):
        yield from _text(node.text or "", cls, {}, path)
        return
    elements, attributes = {}, set()
    for order, (field, hint, several) in enumerate(_fields(cls)):
        meta, name = field.metadata, field.metadata.get("name", field.name)
        match meta.get("type"):
            case "Element":
                elements[name] = (order, field, hint, several)
            case "Attribute":
                attributes.add(name)
                if name in node.attrib:
                    yield from _text(node.attrib[name], hint, meta, f"{path}/@{name}")
                elif meta.get("required"):
                    yield f"{path}: no attribute {name}"
            case "Wildcard":
                return  # whatever the parties agreed on
            case _:
                yield from _text(node.text or "", hint, meta, path)
    yield from (f"{path}: attribute {name}" for name in node.attrib if name not in attributes)
    yield from _children(node, elements, path)
    if cls.__name__.endswith("Choice") and len({etree.QName(child).localname for child in node}) != 1:
        yield f"{path}: a choice with {len(node)} alternatives"


def _children(node: etree._Element, elements: dict[str, Any], path: str) -> Iterator[str]:
    counts: dict[str, int] = {}
    last, before = -1, ""
    for child in node:
        name = etree.QName(child).localname
        if name not in elements:
            yield f"{path}: no element {name} here"
            continue
        order, field, hint, _ = elements[name]
        if order < last:
            yield f"{path}: {name} after {before}"
        last, before = order, name
        counts[name] = counts.get(name, 0) + 1
        if dataclasses.is_dataclass(hint):
            yield from _element(child, hint, f"{path}/{name}")
        else:
            yield from _text(child.text or "", hint, field.metadata, f"{path}/{name}")
    for name, (_, field, _, several) in elements.items():
        count, meta = counts.get(name, 0), field.metadata
        if count < (meta.get("min_occurs", 0) if several else int(bool(meta.get("required")))):
            yield f"{path}: no {name}"
        if count > (meta.get("max_occurs", count) if several else 1):
            yield f"{path}: {count} times {name}"


def _text(text: str, kind: type, meta: Any, path: str) -> Iterator[str]:
    """The facets of a text that the classes carry."""
    try:
        if issubclass(kind, Enum):
            kind(text)
        elif kind in (XmlDate, XmlDateTime):
            kind.from_string(text)
        elif kind is Decimal:
            _, digits, exponent = Decimal(text).as_tuple()
            if len(digits) > meta.get("total_digits", 99) or -int(exponent) > meta.get("fraction_digits", 99):
                yield f"{path}: {len(digits)} digits, {-int(exponent)} of them behind the point"
        elif kind is bool and text not in ("true", "false", "1", "0"):
            yield f"{path}: no truth value"
        elif kind not in SCALARS:
            raise TypeError(f"{path}: {kind} is not known here")
    except (ValueError, InvalidOperation):
        yield f"{path}: {text[:20]!r} is no {kind.__name__}"
    if kind is str:
        if not meta.get("min_length", 0) <= len(text) <= meta.get("max_length", len(text)):
            yield f"{path}: {len(text)} characters"
        if "pattern" in meta and re.fullmatch(meta["pattern"], text) is None:
            yield f"{path}: {text[:20]!r} does not match {meta['pattern']}"


def element_type(document: type, path: str) -> type | None:
    """The type of `A/B/C` below a document's root; None where the schema has no such element."""
    found: type = document
    for tag in path.split("/"):
        below = (
            {field.metadata.get("name"): hint for field, hint, _ in _fields(found)}
            if dataclasses.is_dataclass(found)
            else {}
        )
        if tag not in below:
            return None
        found = below[tag]
    return found
