#!/bin/sh
# The small guest: make /guest/vmlinuz and /guest/initrd.gz in the root given, of what is installed there. Up within
# seconds even when emulated; it knows the config drive, DHCP, SSH and the power button.
set -eu
mkdir -p "$1/guest/tree"
cp "$(dirname "$0")/init" "$1/guest/tree/init"
cp "$(dirname "$0")/dhcp" "$1/guest/tree/dhcp"
cp "$(dirname "$0")/sudo" "$1/guest/tree/sudo"
exec chroot "$1" sh -eu <<'END'
cd /guest/tree
mkdir -p bin sbin usr/bin dev proc sys tmp mnt lib64 root/.ssh var/run etc/dropbear
mv sudo usr/bin/sudo
cp /bin/busybox bin/
cp /usr/sbin/dropbear /usr/bin/dropbearconvert bin/
ldd bin/dropbear bin/dropbearconvert | grep -o '/[^ :]*\.so[^ ]*' | sort -u | while read -r library; do
  mkdir -p ".${library%/*}"
  cp -L "$library" ".$library"
done
version=$(ls /lib/modules)
for module in virtio_pci virtio_net virtio_blk ata_piix sr_mod isofs vfat nls_cp437 nls_ascii button evdev; do
  modprobe --set-version="$version" --show-depends "$module" || true
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r module; do
  mkdir -p ".${module%/*}"
  cp "$module" ".$module"
done
depmod -b . "$version"
echo /bin/sh >etc/shells
chmod 700 root/.ssh
find . | busybox cpio -o -H newc 2>/dev/null | gzip -9 >../initrd.gz
mv /boot/vmlinuz-* /guest/vmlinuz
rm -rf /guest/tree /lib/modules /boot/*
END
