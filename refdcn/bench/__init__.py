"""`refdcn bench`: what the operator costs, beside others that take turns with it."""
