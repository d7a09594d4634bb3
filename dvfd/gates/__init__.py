"""Whether a phase may be left: decided on the ledger, signed into it."""
