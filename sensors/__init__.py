"""What makes things move without a person: one module per trigger."""
