"""What comes next: networks that predict tokens, and strategies that ask them. Knows tokens, never signals or files."""
