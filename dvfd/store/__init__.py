"""The only SQL: samples with rollups, telemetry, records, and the outbox."""
