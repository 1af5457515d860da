"""Routing, failover, limits and streams; knows no wire."""
