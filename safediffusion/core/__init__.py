"""Types, keyed noise, errors, registry, statistics and the process fleet: what every layer shares."""
