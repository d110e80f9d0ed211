"""Work that needs no kernel: one Python call a turn."""

import itertools


class Tasks:
    """task(i) for every i < count, as work."""

    def __init__(self, task, count):
        self.task, self.count, self.closed = task, count, False
        self.turns = itertools.count()  # next() is atomic: each i is taken once
        self.done = []

    def visit(self, is_caller):
        def one(turn):
            i = turn if turn >= self.count else next(self.turns)
            if i < self.count:
                self.task(i)
                self.done.append(None)
                return i
            waits = is_caller and not self.closed and len(self.done) < self.count
            return self.count if waits else -1

        return one

    def close(self):
        self.closed = True
