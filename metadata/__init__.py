"""What one can ask of the project: models, versions, runs, figures, data, verdicts, deployments, checks and alerts.

The facts stay where they are written: MLflow's store, the ledger, the alerts, Dagster's instance and the stamps of the
tables. They are read for each question, so there is no copy that could be out of date.

Belongs here: reading these facts as typed rows, SQL over them, comparing two versions, and the lineage of one. Does not
belong here: text output (``cli/metadata.py``), pages (``serving/watch``), writing any of the facts.
"""
