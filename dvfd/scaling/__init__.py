"""How throughput grows with processes: what was measured, what fits make of it, what was foretold.

The ledger keeps and compares, a child process fits, nothing here judges.
"""
