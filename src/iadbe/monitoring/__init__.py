"""What production images look like hour by hour, and whether they still resemble those of the calibration."""
