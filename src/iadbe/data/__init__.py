"""From the user's data to images in a view: resolving, checking, layouts, transforms, batches."""
