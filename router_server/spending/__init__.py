"""What budgets have left: kept in Redis for all replicas, or in memory."""
