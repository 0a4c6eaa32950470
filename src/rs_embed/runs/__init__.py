"""Durable runs: results are kept as they come, and the same request resumes them."""
