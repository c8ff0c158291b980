"""A fitted detector as one file that runs without IADBE's training stack."""

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}  # of files, by format
PRECISIONS = ("fp32", "fp16", "int8")  # of the weights; int8: of a backbone's activations too
STEPS = 3  # of an export that are reported: the model loaded, converted, compared
