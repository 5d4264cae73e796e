"""The simulator: `meshd.node` n times in simulated time, under faults drawn from a seed."""
