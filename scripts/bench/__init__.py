"""The benchmark: ratios side by side, floors measured in the same run."""
