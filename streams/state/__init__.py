"""Where the state of the partitions is kept, between restarts."""
