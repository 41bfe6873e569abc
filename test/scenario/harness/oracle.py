# SPDX-License-Identifier: Apache-2.0
"""What the sampling policies say, from their definition."""

import fractions

MASK64 = (1 << 64) - 1


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & MASK64
    return h


def bound(percent):
    """The Collector's: the exact product, rounded to 64 bits to even, its fraction cut off."""
    exact = fractions.Fraction(percent / 100) * MASK64
    shift = 64 - int(exact).bit_length()
    return int(fractions.Fraction(round(exact * 2**shift), 2**shift))


def kept_by_chance(trace_id, percent, salt=b"default-hash-seed"):
    """The probabilistic policy: the Collector's hash of salt and trace id."""
    return fnv1a64(salt + trace_id) <= bound(percent)
