"""A fitted detector as one file that runs without IADBE's training stack."""

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}  # of files, by format
