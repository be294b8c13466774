"""How this process speaks to the brokers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

REBALANCE_SECONDS = 20.0
"""How long a revoked partition may take to write down what it has."""


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How this process speaks to the brokers."""

    bootstrap: str | list[str]
    security_protocol: str = "PLAINTEXT"
    ssl_context: ssl.SSLContext | None = None
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = None
    session_timeout_ms: int = 10_000
    request_timeout_ms: int = 20_000

    def client(self) -> dict[str, Any]:
        """Arguments that every client takes."""
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "request_timeout_ms": self.request_timeout_ms,
        }

    def member(self, group: str, instance: str) -> dict[str, Any]:
        """Arguments of a consumer that is a static member of a group."""
        return {
            **self.client(),
            "group_id": group,
            "group_instance_id": instance,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "session_timeout_ms": self.session_timeout_ms,
            "heartbeat_interval_ms": max(100, self.session_timeout_ms // 5),
            "rebalance_timeout_ms": max(self.session_timeout_ms, int(REBALANCE_SECONDS * 1000) + 5_000),
            "max_poll_interval_ms": 86_400_000,  # progress is watched by /livez, not by leaving the group
            # Brokers name static members by their instance id, so this order outlives restarts. aiokafka's sticky assignor
            # does not send its generation: after a zombie it gives a partition to two members.
            "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
        }


def make_producer(
    options: KafkaOptions, *, idempotent: bool = True, compression: str | None = None
) -> AIOKafkaProducer:
    """A producer that keeps the order of each partition and never writes a message twice."""
    return AIOKafkaProducer(
        **options.client(),
        enable_idempotence=idempotent,
        acks="all",
        compression_type=compression,
        max_batch_size=512 * 1024,
        max_request_size=4 * 1024 * 1024,
        linger_ms=0,
    )
