"""Workers as actors of a Ray cluster: each keeps its model warm on some node, and gets its orders from here.

Nothing that matters is kept in Ray: jobs are rows of the database, files lie in the store, and an actor that is lost is
another attempt of its job.
"""

import contextlib
import logging
import threading

from sonic_ms import __version__
from sonic_ms.errors import EngineError, UsageError
from sonic_ms.serve.looks import Looks
from sonic_ms.serve.process import arguments_of
from sonic_ms.serve.remote import LISTEN, Remote

log = logging.getLogger("sonic_ms.serve")

START = 20.0  # seconds after which an actor that has not begun yet is told of
LOOK = 1.0  # seconds between two looks whether it has one
LOST = 15.0  # seconds without an answer, beyond those that it may take, after which an actor counts as lost
END = 1.0  # seconds for the end of an actor's process before the actor itself is ended


def connect(address):
    """Join a Ray cluster from this machine, which is one of its nodes. address: HOST:PORT of its head, or "auto".
    Raises EngineError, also without the package."""
    try:
        import ray
    except ImportError as error:
        raise EngineError(f"--workers ray needs Ray ({error}); pip install 'sonic_ms[cluster]'") from error
    if ray.is_initialized():
        return
    try:
        ray.init(address=address, namespace="sonic_ms", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # its errors share no base class
        raise EngineError(
            f"no Ray cluster answers at {address} ({_line(error)}); start one with ray start --head, and on this "
            "machine ray start --address HEAD:PORT"
        ) from error


def chip_of(bundle):
    """The chip that a bundle was built for, as the label `soc` says it; None for one that runs anywhere. Raises
    UsageError for a bundle built for several."""
    from sonic_ms.pipeline import chips_of

    chips = chips_of(bundle) if bundle else []
    if len(chips) > 1:
        raise UsageError(f"bundle {bundle} was built for {', '.join(chips)}; say with --soc which of them is meant")
    return chips[0] if chips else None


class ActorWorker:
    """A worker on some node of the cluster: the same interface as process.Worker, which slots.py uses. Its messages,
    and None at its end, are put into `inbox` with itself.

    soc: chip that it needs, by the nodes' label of that name; it gets one of the resource NPU to itself, else one
    processor and one thread.
    """

    moves_files = True

    def __init__(self, settings, address, soc, inbox):
        self.ready, self.engine = False, None
        self.jobs, self.kill_at, self._looks = {}, {}, Looks(self.tell)
        self.ended, self.blameless = "the worker ended", False
        self._settings, self._address, self._soc, self._inbox = settings, address, soc, inbox
        self._actor, self._node, self._over = None, None, False
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True, name="actor").start()

    def _run(self):
        try:
            self._follow()
        except Exception as error:  # Ray's share no base class
            self._lost(error)
        self._close()
        self._looks.end()
        self._inbox.put((self, None))

    def _follow(self):
        """Start the actor and hand its messages on until it ends."""
        import ray

        needs = {"num_cpus": 1, "max_concurrency": 8, "max_restarts": 0}
        if self._soc:
            needs |= {"resources": {"NPU": 1}, "label_selector": {"soc": self._soc}}
        with self._lock:
            if self._over:
                return
            actor = ray.remote(**needs)(Remote)
            self._actor = actor.remote(arguments_of(self._settings), self._address, 0 if self._soc else 1)
        hello = self._hello(ray)
        if hello["version"] != __version__:
            return self._broken("wrong_version", f"{self._node} has sonic_ms {hello['version']} and this server "
                                f"{__version__}; install the same version on every node")  # fmt: skip
        while not self._over:
            for message in ray.get(self._actor.listen.remote(), timeout=LISTEN + LOST):
                if message["is"] == "ended":
                    self.ended = f"{message['how']}, on {self._node}"
                    return
                self._hand_on(message)

    def _hello(self, ray):
        """What the actor says of itself, once it has a place; until then the slot is told what it waits for."""
        asked, waited = self._actor.hello.remote(), 0.0
        while not ray.wait([asked], timeout=LOOK)[0]:
            if self._over:
                raise EOFError("it was ended before it began")
            waited += LOOK
            if told := self._nobody(ray, waited):
                self._inbox.put((self, {"is": "broken", **told}))
        hello = ray.get(asked)
        self._node = f"node {hello['host']}"
        return hello

    def _nobody(self, ray, waited):
        """The fault of a cluster that has no place for this worker; None while it may be starting."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        fitting = [node for node in nodes if not self._soc or node["Labels"].get("soc") == self._soc]
        if not fitting:
            return fault("no_such_chip", f"no node of the cluster has the label soc={self._soc}; start one with "
                         f"ray start --labels soc={self._soc}, or serve a bundle for another chip")  # fmt: skip
        if waited < START:
            return None
        wanted = "NPU" if self._soc else "CPU"
        there = sum(node["Resources"].get(wanted, 0) for node in fitting)
        return fault("no_free_node", f"a worker waits for a free {wanted} ({there:g} in {len(fitting)} nodes) or for "
                     "its process to start; add nodes, or ask for fewer --slots")  # fmt: skip

    def _hand_on(self, message):
        if message["is"] == "looked":
            self._looks.answer(message)
            return
        if message["is"] == "ready":
            self.ended = f"the worker on {self._node} ended"
        if message["is"] == "broken":
            message["message"] = f"{self._node}: {message['message']}"
        self._inbox.put((self, message))

    def _broken(self, code, message):
        self._inbox.put((self, {"is": "broken", **fault(code, message)}))

    def _lost(self, error):
        """The actor cannot be started or does not answer."""
        if self._over:
            return
        line = _line(error)
        if self._node is None:  # it never said hello
            return self._broken("no_worker", f"a worker could not be started on the cluster ({line}); is sonic_ms "
                                "installed on every node?")  # fmt: skip
        # That a node is gone says nothing of the job; that its memory was full does.
        self.blameless = "memory" not in line.lower()
        self.ended = f"the worker on {self._node} was lost ({line})"
        log.warning("%s", self.ended)

    def tell(self, **order):
        with contextlib.suppress(Exception):  # it has gone; its end is in the inbox
            self._actor.order.remote(order)

    def look(self, **order):
        """As of process.Worker."""
        return self._looks.ask(**order)

    def end(self):
        """End its process, then the actor; returns when that was asked for."""
        self._over = True
        self._close()

    def _close(self):
        import ray

        with self._lock:
            actor, self._actor = self._actor, None
        if actor is None:
            return
        with contextlib.suppress(Exception):  # it is lost already
            ray.get(actor.end.remote(), timeout=END)
        with contextlib.suppress(Exception):
            ray.kill(actor)


def fault(code, message):
    return {"code": code, "message": message, "status": 503}


def _line(error):
    """The last line of an error of Ray, which may have pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
