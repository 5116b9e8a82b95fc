"""What a method may do beside its hooks, each part small and optional: data policy, cost, cache fields, card."""
