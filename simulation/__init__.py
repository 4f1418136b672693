"""A month of exports with a seed: an API, a store, a daemon and its runs, and what must hold after each step."""
