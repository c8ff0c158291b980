"""What lies on disks: images, depth maps and videos, folders of them, downloads and archives."""
