"""A real Ray cluster on this machine, of several nodes with chips that are not there.

A raylet gives up when its agents, Python programs with many imports, have not said their ports within 15 seconds, which
busy machines do not make. So the ports are chosen here and said for them.
"""

import contextlib
import inspect
import os
import socket
from pathlib import Path

PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
STORE = 80 * 2**20  # bytes of a node's object store; nothing of ours is put into it
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_niceness": "0",  # 15 by default: actors would wait for everything else on this machine
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def free_ports():
    """{name: a port that nobody listens at}."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in zip(PORTS, sockets)}


@contextlib.contextmanager
def cluster():
    """A ray.cluster_utils.Cluster whose head has no processor for us; its nodes come from `add_node`."""
    os.environ.update(ENVIRONMENT)
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # actors find tests.support
    from ray._private import services
    from ray.cluster_utils import Cluster

    plain, signature = services.start_raylet, inspect.signature(services.start_raylet)

    def start_raylet(*args, **kwargs):
        known = signature.bind(*args, **kwargs).arguments
        for name in PORTS:
            path = os.path.join(known["session_dir"], f"{name}_{known['node_id']}")
            with open(path, "w") as file:
                file.write(str(known[name]))
        return plain(*args, **kwargs)

    services.start_raylet = start_raylet
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False, **free_ports()}
    made = None
    try:
        made = Cluster(initialize_head=True, head_node_args=head)
        yield made
    finally:
        services.start_raylet = plain
        if made is not None:
            made.shutdown()


def add_node(cluster, **arguments):
    """A further node; arguments as of Cluster.add_node."""
    return cluster.add_node(**{"num_cpus": 1, "object_store_memory": STORE, **free_ports(), **arguments})


def node_of(cluster, pid):
    """The node among `cluster.chips` whose raylet began a process."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return next(one for one in cluster.chips if one.all_processes["raylet"][0].process.pid == parent)
