"""The drivers that come with machinekit, one file each."""

DEFAULT = "qemu"
