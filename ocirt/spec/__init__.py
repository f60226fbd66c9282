"""Read and validate config.json: `load` reads, `check` judges, the other modules hold one subject each."""
