"""What people and tools read: the summary table and the failed configurations, from the store alone."""
