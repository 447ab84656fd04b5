"""Every variant and plan, accuracy against cost."""
