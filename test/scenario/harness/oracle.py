"""What the sampling policies say, from their definition."""

MASK64 = (1 << 64) - 1


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & MASK64
    return h


def kept_by_chance(trace_id, percent, salt=b"default-hash-seed"):
    """The probabilistic policy: the Collector's hash of salt and trace id."""
    return fnv1a64(salt + trace_id) <= int(percent / 100 * float(MASK64))
