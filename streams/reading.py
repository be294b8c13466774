"""Reading everything that topics hold now, without a group and without waiting for more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

WAIT_MS = 500
"""Longest wait for one fetch."""


async def places_of(client: AIOKafkaConsumer, topics: Sequence[str]) -> list[TopicPartition]:
    """Every partition of those of these topics that are there.

    A client without a subscription knows the partitions of no topic, and `topics()` teaches it none: it has to be told which ones
    it should follow. Only those that are there, or a broker might create the others.
    """
    there = await client.topics()
    known = [topic for topic in topics if topic in there]
    if known:
        await client._client.set_topics(known)
    return [
        TopicPartition(topic, partition)
        for topic in known
        for partition in sorted(client.partitions_for_topic(topic) or ())
    ]


async def read_all(client: AIOKafkaConsumer, topics: Sequence[str]) -> AsyncIterator[Any]:
    """Every record that these topics hold now, partition by partition in order. A topic that is not there holds none."""
    places = await places_of(client, topics)
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
