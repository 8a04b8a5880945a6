# SPDX-License-Identifier: Apache-2.0
"""Frames by hand, for tests of what a pod may send.

frames.py send LINK   reads a frame from each line, "KIND KEY=VALUE...", and sends them all. Prints how
                      each arrives where it arrives, as hex digits. KIND: udp, udp6, arp, na, ns, ra,
                      mld, dhcp, raw. Keys: to, from (MACs), src, dst (addresses), sha (ARP sender MAC),
                      target (ND), type (of raw), tag (a VLAN in front, which does not arrive)
frames.py log LINK    prints each frame that arrives, likewise; "ready" first
"""
import ipaddress, socket, struct, sys

def mac(text):
    return bytes.fromhex(text.replace(":", ""))

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff

def packed(text):
    return ipaddress.ip_address(text).packed

def ip4(k, payload, protocol=17):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0) + packed(k["src"]) + packed(k["dst"])
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload

def ip6(k, payload, protocol, hops=255):
    src, dst = packed(k["src"]), packed(k["dst"])
    at = {17: 6, 58: 2}[protocol]
    sum = checksum(src + dst + struct.pack("!IHBB", len(payload), 0, 0, protocol) + payload)
    payload = payload[:at] + struct.pack("!H", sum) + payload[at + 2:]
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + src + dst + payload

def udp(sport, dport, data):
    return struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data

def build(kind, k, serial):
    data = b"flatnet%d" % serial
    k.setdefault("to", "ff:ff:ff:ff:ff:ff")
    if kind == "udp":
        type, body = 0x0800, ip4(k, udp(4000, 4001, data))
    elif kind == "dhcp":
        type, body = 0x0800, ip4({"src": "0.0.0.0", "dst": "255.255.255.255"}, udp(68, 67, b"\1\1\6" + bytes(297)))
    elif kind == "udp6":
        type, body = 0x86dd, ip6(k, udp(4000, 4001, data), 17)
    elif kind == "arp":
        type = 0x0806
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac(k.get("sha", k["from"])) + packed(k["src"]) + mac(k["to"]) + packed(k["dst"])
    elif kind == "na":
        type, body = 0x86dd, ip6(k, struct.pack("!BBHI", 136, 0, 0, 0x20000000) + packed(k["target"]) + b"\2\1" + mac(k["from"]), 58)
    elif kind == "ns":
        type, body = 0x86dd, ip6(k, struct.pack("!BBHI", 135, 0, 0, 0) + packed(k["target"]), 58)
    elif kind == "ra":
        type, body = 0x86dd, ip6(k, struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\1\1" + mac(k["from"]), 58)
    elif kind == "mld":
        type, body = 0x86dd, ip6(k, struct.pack("!BBHHH", 143, 0, 0, 0, 0), 58)
    else:
        type, body = int(k["type"], 0), data + bytes(40)
    head = mac(k["to"]) + mac(k["from"])
    body = struct.pack("!H", type) + body
    tag = struct.pack("!HH", 0x8100, int(k["tag"])) if "tag" in k else b""
    return head + tag + body, head + body

link = sys.argv[2]
if sys.argv[1] == "send":
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((link, 0))
    for serial, line in enumerate(sys.stdin):
        kind, *keys = line.split()
        frame, plain = build(kind, dict(key.split("=", 1) for key in keys), serial)
        s.send(frame)
        print(plain.hex())
else:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    s.bind((link, 3))
    # everything on the link, whomever it is for
    s.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex(link), 1, 0, b""))
    print("ready", flush=True)
    while True:
        frame, where = s.recvfrom(65535)
        if where[2] != 4:  # not PACKET_OUTGOING
            print(frame.hex(), flush=True)
