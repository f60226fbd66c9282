"""What the tests and the benches share: bundles, a driver for runtimes, terminals, and the search for what a test left behind."""
