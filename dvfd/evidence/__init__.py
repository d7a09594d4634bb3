"""The ledger of evidence: what was run, said and decided, each record chained to the one before."""
