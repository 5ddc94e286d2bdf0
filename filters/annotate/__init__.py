"""Annotations: a sample of pages, LLM judges, the store of their answers, and how far to believe them."""
