"""Provoke: work and tests that run beside the daemon, in processes of their own. Never judge."""
