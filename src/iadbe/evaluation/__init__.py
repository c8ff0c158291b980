"""From scores to rows of a result: metrics, confidence intervals, calibrated thresholds."""
