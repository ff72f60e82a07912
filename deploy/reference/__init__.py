"""What the reference is made of, a module for each page."""
