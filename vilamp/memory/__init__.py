"""The planner: what a run would take of a GPU's memory, counted without one."""
