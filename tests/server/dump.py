"""What DUMP answers, taken apart and sealed anew."""


def crc64_table():
    """CRC-64 as Jones chose it, bits reversed."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
        table.append(crc)
    return table


CRC64 = crc64_table()


def crc64(data):
    crc = 0
    for byte in data:
        crc = CRC64[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


class Dump:
    """What DUMP answered: its type, the module's type, a string that the codec wrote; then a footer."""

    def __init__(self, dump):
        self.body, self._version = dump[:-10], dump[-10:-8]
        self._head = dump[:10]

    @property
    def payload(self):
        """What the codec wrote, if the server has not compressed it."""
        # The head, 5 for a string, a length that is written in 1, 2 or 5 bytes, the string, 0 for the end.
        return self.body[12 + [0, 1, 4][min(self.body[11] >> 6, 2)] : -1]

    def sealed(self, body):
        """A body with the version of the server and the right checksum behind it."""
        whole = body + self._version
        return whole + crc64(whole).to_bytes(8, "little")

    def damaged(self, damage, payload):
        """This dump with its payload damaged, or what stands around it, or anything.

        Not its first byte: in values of its own types the server believes more than it should.
        """
        match damage.chance.randrange(4):
            case 0:
                return self.sealed(self.body[:1] + damage.done_to(self.body[1:]))
            case 1:
                return self.sealed(self.body[:1] + damage.done_to(self.body[1:16]) + self.body[16:])
        return self.holding(damage.done_to(payload))

    def holding(self, payload):
        """A dump like this one with that payload."""
        return self.sealed(b"%b\x05\x80%b%b\0" % (self._head, len(payload).to_bytes(4, "big"), payload))
