"""Configuration of the services next to a deployed Assetline: Dagster, Prometheus, Alertmanager and Grafana."""
