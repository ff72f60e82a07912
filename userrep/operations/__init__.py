"""Table maintenance and cost estimates."""
