"""From the user's data to batches of images: resolving, checking, layouts, transforms, views."""
