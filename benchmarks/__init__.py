"""What it costs to issue keys, beside the ways one would do it by hand: `python -m benchmarks [--quick] [NAME ...]`."""
