"""What the recipes reach when trained as a user would, and what they are held to."""
