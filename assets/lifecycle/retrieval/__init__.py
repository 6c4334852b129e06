"""Answers from a knowledge base: documents, search, replies with their sources, and when to hand over."""
