"""Workers that are threads of this process: every part of an executor but the transport."""

from mechspex.executors.measurer import Measurer


class Threads:
    """An executor of such workers, each with a value function of its own."""

    def __init__(self, n_workers: int):
        self.n_workers = n_workers

    def start(self, number):
        return Thread()

    def close(self):
        pass


class Thread(Measurer):
    def close(self):
        pass
