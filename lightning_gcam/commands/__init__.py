"""What `lightning-gcam` can do, a file a command. What is heavy is imported where a command runs, not for its help."""
