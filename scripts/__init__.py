"""What developers run: setup, locks, generated pages."""
