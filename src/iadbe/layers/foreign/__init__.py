"""What detectors of other tools share: their options, weight files, pretrained networks and working folders."""
