"""A run: the parent, which starts, watches and reports, and the child, in which LoadGen's test happens."""
