"""Deduplication: exact and near copies, and the phases that find them."""
