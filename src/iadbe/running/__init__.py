"""From a grid to results: plan, processes, runs, and the folders that they are stored in."""
