"""What measures: ratios taken in one run."""
