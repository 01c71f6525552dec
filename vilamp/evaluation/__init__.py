"""Runs benchmarks: asks a checkpoint every question, keeps every answer, and states what produced the score."""
