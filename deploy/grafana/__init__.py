"""Dashboards from code, and their provisioning."""
