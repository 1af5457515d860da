"""Observers: spans, metrics, logs."""
