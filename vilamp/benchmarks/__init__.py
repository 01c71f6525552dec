"""Benchmarks that come with it: how each is read, asked and scored (the contract is :mod:`vilamp.benchmark`)."""
