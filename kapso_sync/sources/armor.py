"""Reads the text around signatures and keys: OpenPGP's and OpenSSH's armor, and the packets of OpenPGP. Pure.

Strict: whatever is not exactly one block, or one sequence of packets, raises ValueError, so that nobody can hide a second
signature, or a message of its own, in what another program is about to read.

Sources: RFC 9580 sections 4.2 and 6.2 for OpenPGP, and PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

SIGNATURE_PACKET, SECRET_KEY_PACKET, PUBLIC_KEY_PACKET = 2, 5, 6


def remove_armor(text: bytes, label: str) -> bytes:
    """Return the bytes of one armored block, such as ``PGP SIGNATURE``; raises ValueError if ``text`` is not exactly that.

    Its headers and its checksum are ignored, as RFC 9580 allows: they protect nothing.
    """
    lines = [line.strip() for line in text.strip().split(b"\n")]
    if lines[0] != f"-----BEGIN {label}-----".encode() or lines[-1] != f"-----END {label}-----".encode():
        raise ValueError(f"it is not a {label} from its first to its last line")
    body = lines[1:-1]
    if b"" in body:
        gap = body.index(b"")
        if any(b": " not in line and not line.endswith(b":") for line in body[:gap]):
            raise ValueError("it has a gap")
        body = body[gap + 1 :]
    if body and body[-1].startswith(b"=") and len(body[-1]) == 5:
        body = body[:-1]
    try:
        return base64.b64decode(b"".join(body), validate=True)
    except binascii.Error as error:
        raise ValueError("it is not base64") from error


def packet_tags(data: bytes) -> Iterator[int]:
    """Yield the tag of each OpenPGP packet; raises ValueError where ``data`` is anything else than whole packets."""
    position = 0
    while position < len(data):
        tag, start, length = _packet_header(data, position)
        position = start + length
        if position > len(data):
            raise ValueError("its last packet is cut off")
        yield tag


def _packet_header(data: bytes, position: int) -> tuple[int, int, int]:
    """Return a packet's tag, where its body starts, and how long it is."""
    first = data[position]
    if not first & 0x80:
        raise ValueError("it holds something that is not an OpenPGP packet")
    if first & 0x40:
        octet = _number(data, position + 1, 1)
        if octet < 192:
            return first & 0x3F, position + 2, octet
        if octet < 224:
            return first & 0x3F, position + 3, ((octet - 192) << 8) + _number(data, position + 2, 1) + 192
        if octet == 255:
            return first & 0x3F, position + 6, _number(data, position + 2, 4)
    elif first & 3 != 3:
        size = 1 << (first & 3)
        return (first >> 2) & 0xF, position + 1 + size, _number(data, position + 1, size)
    raise ValueError("it has a packet of unknown length, which no key and no signature has")


def _number(data: bytes, position: int, size: int) -> int:
    if position + size > len(data):
        raise ValueError("its last packet is cut off")
    return int.from_bytes(data[position : position + size], "big")


def ssh_strings(data: bytes) -> Iterator[bytes]:
    """Yield the strings of SSH's wire format, each after its length in four bytes; raises ValueError where one is cut off."""
    position = 0
    while position < len(data):
        size = _number(data, position, 4)
        position += 4 + size
        if position > len(data):
            raise ValueError("a part of it is cut off")
        yield data[position - size : position]
