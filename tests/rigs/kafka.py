"""One real Apache Kafka broker (KRaft, one node) on loopback ports, from the cached jars."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, TopicPartition

from tests.rigs import parts
from tests.rigs.process import Program, RigError, free_port

CLUSTER_ID = "c2FmZWhvbGQtdGVzdHMhIQ"  # any 16 bytes, base64


class KafkaBroker:
    """A broker that can be stopped, killed, paused and started again on its data and port.

    ``options`` are lines of server.properties over the ones below. With ``advertise_proxy`` a second
    listener (``proxied_bootstrap_target``) tells its clients to come back to that port, which is where
    a FaultProxy listens. ``full_speed`` is for benchmarks.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        options: Mapping[str, str] | None = None,
        advertise_proxy: int | None = None,
        heap: str = "512m",
        full_speed: bool = False,
    ) -> None:
        self._java = parts.find_java()
        self._libs = parts.kafka_libs()
        if self._java is None or self._libs is None:
            raise RigError("Apache Kafka is not here: python -m tests.rigs.parts install")
        self.folder = folder or Path(tempfile.mkdtemp(prefix="safehold-kafka-"))
        self.port = free_port()
        self._controller = free_port()
        self._proxied = free_port()
        self._advertise_proxy = advertise_proxy
        self._heap = heap
        # The quick compiler alone starts a broker with two thirds of the work. Benchmarks want the other one too.
        self._compilers = 4 if full_speed else 1
        self._program = Program("kafka", self.folder / "kafka.log")
        self._properties = self.folder / "server.properties"
        self._write_properties(options or {})

    @property
    def bootstrap(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def proxied_port(self) -> int:
        """The listener that a FaultProxy forwards to."""
        return self._proxied

    @property
    def log(self) -> Path:
        """Where the broker writes what it does."""
        return self._program.log

    @property
    def running(self) -> bool:
        """Whether the broker process is there."""
        return self._program.running

    def start(self) -> KafkaBroker:
        """Start the broker and wait until it answers."""
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()
        self._program.start(self._command("kafka.Kafka", str(self._properties)))
        self._program.wait_ready(self._answers, within=120)
        return self

    def stop(self) -> None:
        """An orderly shutdown."""
        self._program.stop()

    def kill(self) -> None:
        """kill -9."""
        self._program.kill()

    def pause(self) -> None:
        """Freeze the broker: connections stay open, nothing answers."""
        self._program.pause()

    def resume(self) -> None:
        """Let a frozen broker go on."""
        self._program.resume()

    def restart(self) -> None:
        """Start again on the same data and port, after a stop if it still runs."""
        if self.running:
            self.stop()
        self.start()

    @contextlib.contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        """An admin client of this broker."""
        client = KafkaAdminClient(bootstrap_servers=self.bootstrap, client_id="safehold-rig")
        try:
            yield client
        finally:
            client.close()

    def create_topics(self, topics: Mapping[str, int], configs: Mapping[str, str] | None = None) -> None:
        """Create topics (name to partition count) and wait until every client sees them."""
        wanted: dict[str, dict[str, Any]] = {
            name: {"num_partitions": count, "replication_factor": 1, "configs": dict(configs or {})}
            for name, count in topics.items()
        }
        with self.admin() as admin:
            admin.create_topics(wanted, wait_for_metadata=True)

    def delete_records_before(self, topic: str, partition: int, offset: int) -> None:
        """Shorten a log, as retention would."""
        with self.admin() as admin:
            admin.delete_records({TopicPartition(topic, partition): offset})

    def _answers(self) -> bool:
        """Whether ApiVersions is answered. The port is open long before requests are served."""
        request = struct.pack(">hhih", 18, 0, 1, -1)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                return len(connection.recv(4)) == 4
        except OSError:
            return False

    def _format(self) -> None:
        command = self._command(
            "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._properties)
        )
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RigError(f"formatting Kafka's storage failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _command(self, main: str, *arguments: str) -> list[str]:
        java = [
            str(self._java),
            f"-Xmx{self._heap}",
            "-XX:+UseSerialGC",
            f"-XX:TieredStopAtLevel={self._compilers}",
        ]
        java += ["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dlog4j2.level=WARN"]
        return [*java, "-cp", f"{self._libs}/*", main, *arguments]

    def _write_properties(self, options: Mapping[str, str]) -> None:
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": (
                f"PLAIN://127.0.0.1:{self.port},PROXIED://127.0.0.1:{self._proxied},"
                f"CONTROLLER://127.0.0.1:{self._controller}"
            ),
            "advertised.listeners": (
                f"PLAIN://127.0.0.1:{self.port},PROXIED://127.0.0.1:{self._advertise_proxy or self._proxied}"
            ),
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAIN",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "delete.topic.enable": "true",
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "500",
            "group.max.session.timeout.ms": "1800000",
            "log.retention.check.interval.ms": "2000",
            "log.cleaner.backoff.ms": "500",
            "log.segment.delete.delay.ms": "500",
            "log.cleaner.dedupe.buffer.size": "16777216",
            # A killed broker may register again only after its session: keep that short.
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "300",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "num.recovery.threads.per.data.dir": "1",
            "metrics.recording.level": "INFO",
            **options,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
