"""What a PromQL expression reads, and whether Safehold shows it."""

from __future__ import annotations

from collections.abc import Iterator

import promql_parser
from promql_parser import AggModifierType, AggregateExpr, VectorSelector

from streams.metrics import NAMESPACE, Metrics, Row

BUILT_IN = {"up": {"job", "instance"}}
SCRAPED = {"job", "instance"}


def shown() -> dict[str, set[str]]:
    """Every series that a worker shows, with its labels."""
    names = dict(BUILT_IN)
    for row in Metrics().rows:
        for name, labels in _series(row):
            names[name] = labels | SCRAPED
    return names


def _series(row: Row) -> Iterator[tuple[str, set[str]]]:
    name = row.name if row.name.startswith(f"{NAMESPACE}_") else f"{NAMESPACE}_{row.name}"
    if row.kind == "histogram":
        yield f"{name}_bucket", {*row.labels, "le"}
        yield f"{name}_sum", set(row.labels)
        yield f"{name}_count", set(row.labels)
    else:
        yield name, set(row.labels)


def problems(expression: str) -> list[str]:
    """Names and labels in an expression that no worker shows."""
    known = shown()
    found: list[str] = []
    read: set[str] = set()

    def visit(node: object) -> bool:
        if isinstance(node, VectorSelector):
            name = str(node.name)
            if name not in known:
                found.append(f"{name} is not shown by a worker")
                return True
            read.update(known[name])
            found.extend(
                f"{name} has no label {matcher.name}"
                for matcher in node.matchers.matchers
                if matcher.name not in known[name]
            )
        return True

    def grouped(node: object) -> bool:
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            assert node.modifier.type == AggModifierType.By, (
                "group with `by`, so that a new label changes nothing"
            )
            found.extend(
                f"nothing here has a label {label}" for label in node.modifier.labels if label not in read
            )
        return True

    tree = promql_parser.parse(expression)
    promql_parser.walk(tree, visit)
    promql_parser.walk(tree, grouped)
    return found
