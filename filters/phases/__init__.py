"""Phases of a run, and the files by which their units communicate."""
