"""Configs: sections, YAML files to validated sections, JSON Schema."""
