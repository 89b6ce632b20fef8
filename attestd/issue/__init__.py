"""What a matching machine gets: one credential standard a file, and the keys that sign them."""
