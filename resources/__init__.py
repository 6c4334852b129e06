"""What assets lean on: tables, sources, MLflow, deployment targets, alerts, settings."""
