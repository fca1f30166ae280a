"""The seed that cloud-init reads at the first boot."""

from __future__ import annotations

import io

from machinekit.machine import Machine


def image(user_data: str, machine: Machine, vendor_data: str = "") -> bytes:
    """A NoCloud seed, an ISO 9660 image with the label cidata.

    https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html
    """
    import pycdlib

    meta_data = f"instance-id: {machine.uid}\nlocal-hostname: {machine.name}\n"
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, rock_ridge="1.09", joliet=3, vol_ident="cidata")
    files = {"user-data": user_data, "meta-data": meta_data}
    if vendor_data:
        files["vendor-data"] = vendor_data
    for name, text in files.items():
        content = text.encode()
        short = name.upper().replace("-", "_")
        iso.add_fp(io.BytesIO(content), len(content), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}")
    seed = io.BytesIO()
    iso.write_fp(seed)
    iso.close()
    return seed.getvalue()
