"""One suite over every detector, by discovery."""
