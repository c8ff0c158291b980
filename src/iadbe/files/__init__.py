"""What lies on disks: pictures, depth maps and videos, folders of them, downloads and archives."""
