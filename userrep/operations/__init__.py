"""What it takes to run this every night."""
