"""An example consumer: predict whether a user has an event in the next days, from frozen embeddings only."""
