"""What every declared model gets, one module per stage. No module here names a model."""
