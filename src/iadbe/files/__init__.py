"""Files on disk: images, depth maps, videos, folders, downloads and archives."""
