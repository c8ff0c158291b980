"""Images as they come, from a folder or a camera, to verdicts that are neither lost nor made twice."""
