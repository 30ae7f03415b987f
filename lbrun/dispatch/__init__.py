"""Every open sample, from issue to its one completion: sending, retrying, completing."""
