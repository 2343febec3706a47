"""WebSocket and gRPC servers to check: ``python -m benchmarks.probes_services WEBSOCKET GRPC``."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from websockets.asyncio.server import ServerConnection, serve


async def connected(connection: ServerConnection) -> None:
    """Wait until the client closes."""
    await connection.wait_closed()


async def main(websocket: int, rpc: int) -> None:
    """Serve until the process ends."""
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{rpc}")
    server.start()
    async with serve(connected, "127.0.0.1", websocket):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
