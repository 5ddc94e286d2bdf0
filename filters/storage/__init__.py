"""Storage: atomic writes, files behind addresses, retries."""
