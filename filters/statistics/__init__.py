"""Statistics over groups of pages: bootstrap, agreement, splits."""
