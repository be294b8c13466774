"""Which ledger partition a subject belongs to."""

from __future__ import annotations

_MASK = (1 << 64) - 1


def partition_of(subject: int, partitions: int) -> int:
    """Partition of a subject, in `[0, partitions)`.

    Subjects are keyed hashes, but an identifier feed may bring short ones, so the bits are mixed first (the finaliser of
    SplitMix64; Steele, Lea, Flood 2014, figure 16). This is the only function that places a record.
    """
    if partitions < 1:
        raise ValueError(f"partitions must be at least 1, not {partitions}")
    z = (subject + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) % partitions
