"""The pure core of Safehold: measures, detectors and the fold. No I/O, no clock, no randomness, no logging."""
