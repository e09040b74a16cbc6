"""Evaluation in three acts over files: generate pictures, judge them into rows, reduce rows to estimates."""
