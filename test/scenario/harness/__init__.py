# SPDX-License-Identifier: Apache-2.0
"""What scenario tests share: starting programs, sinks that verify, reading metrics, waiting."""
