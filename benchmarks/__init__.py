"""Scripts that measure what the documentation claims and write the pages that say so. Run them from the repository."""
