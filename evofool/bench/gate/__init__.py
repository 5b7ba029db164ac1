"""The gate for CI: its checks, the rule of acceptance, and what CI systems read."""
