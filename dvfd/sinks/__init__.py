"""Tell: metrics, alerts, and the page. They never recompute a verdict."""
