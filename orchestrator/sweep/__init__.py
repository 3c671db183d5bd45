"""Many points: order, device budget, parallelism, resume, adoption and interrupt."""
