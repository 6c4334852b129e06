"""The sensors that start work automatically: one module per trigger."""
