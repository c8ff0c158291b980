"""What a calibrated model is worth on one's own parts, as one page to sign."""
