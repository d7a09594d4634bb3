"""Stability runs: what was ordered, what was seen, what that is worth, and the report at the end.

`run` is the state machine, `rows` what a run's file holds, `conductor` the daemon's part, `tally`
folds the rows into figures, `verdicts` holds them against the criteria, `report` freezes them.
"""
