"""What an objective can ask of a record: one field a file."""
