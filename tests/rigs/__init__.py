"""The real parts that tests run against: Apache Kafka, Redis, promtool, and a proxy that breaks connections."""
