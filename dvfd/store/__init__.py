"""The only SQL: samples with rollups, telemetry, records, and the outbox."""

from dvfd.store.documents import StoredReport, report_document
from dvfd.store.folds import StepFold
from dvfd.store.retention import Retention
from dvfd.store.states import UNOBSERVED, Interval
from dvfd.store.store import Store, StoreHealth

__all__ = [
    "UNOBSERVED",
    "Interval",
    "Retention",
    "StepFold",
    "Store",
    "StoreHealth",
    "StoredReport",
    "report_document",
]
