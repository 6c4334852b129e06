"""Every speed and quality claim, as a ratio measured side by side in one run."""
