"""Resources that assets use: tables, sources, MLflow, deployment targets, alerts, settings."""
