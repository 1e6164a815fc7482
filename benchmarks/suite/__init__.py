"""The frame of the benchmarks: sections of cases, measured in turn. See __main__.py."""
