"""Job to node: the reporter inside a job, the packets it sends, and the receiver in the daemon."""
