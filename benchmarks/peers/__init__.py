"""Other clients, measured against the same server and by the same rule as lbrun."""
