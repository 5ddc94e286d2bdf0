"""Views of finished runs: terminal, page, comparison, reading test, benchmark leaks."""
