"""Administrative calls: summaries of keys, models, audit log and budgets, behind a rule of the policy and a one-time code."""
