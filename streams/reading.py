"""Reading everything that topics hold now, without a group and without waiting for more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

WAIT_MS = 500
"""Longest wait for one fetch."""


async def read_all(client: AIOKafkaConsumer, topics: Sequence[str]) -> AsyncIterator[Any]:
    """Every record that these topics hold now, partition by partition in order. A topic that is not there holds none."""
    there = await client.topics()
    places = [
        TopicPartition(topic, partition)
        for topic in topics
        if topic in there
        for partition in sorted(client.partitions_for_topic(topic) or ())
    ]
    if not places:
        return
    client.assign(places)
    await client.seek_to_beginning(*places)
    ends = await client.end_offsets(places)
    starts = await client.beginning_offsets(places)
    open_places = {place for place in places if ends[place] > starts[place]}
    while open_places:
        batches = await client.getmany(*open_places, timeout_ms=WAIT_MS)
        for place, records in batches.items():
            for record in records:
                if record.offset < ends[place]:
                    yield record
        for place in list(open_places):
            if await client.position(place) >= ends[place]:
                open_places.discard(place)
