"""Observe: passive, cheap sources, read every few seconds. They never judge."""
