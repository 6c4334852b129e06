"""What stands around a deployed Assetline: Dagster's, Prometheus', Alertmanager's and Grafana's configuration."""
