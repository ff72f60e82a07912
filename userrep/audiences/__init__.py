"""Look-alike audiences: users of a snapshot who resemble the users of a seed list."""
