"""Network blocks: attention, residual, ASPP, discriminators, refiners, students."""
