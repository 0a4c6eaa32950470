"""Durable runs: interrupted at any moment, the same request goes on."""
