"""Bytes → payments: canonical JSON, ISO 20022 XML, and files through a mapping."""
