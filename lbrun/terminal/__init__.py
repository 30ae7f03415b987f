"""What the user sees while a run goes on, and at its end. The only place that writes to the terminal."""
