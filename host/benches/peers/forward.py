"""Forwards PORT of loopback to UPSTREAM; with a COLLECTOR, both sides are instrumented.

Usage: forward.py PORT UPSTREAM [COLLECTOR]
"""

import sys

if len(sys.argv) > 3:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"http://{sys.argv[3]}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    AioHttpServerInstrumentor().instrument()
    AioHttpClientInstrumentor().instrument()

from aiohttp import ClientSession, TCPConnector, web

UPSTREAM = sys.argv[2]


async def client(application):
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, auto_decompress=False) as session:
        application["client"] = session
        yield


async def forward(request):
    url = f"http://{UPSTREAM}{request.path_qs}"
    async with request.app["client"].request(request.method, url) as response:
        return web.Response(status=response.status, body=await response.read())


application = web.Application()
application.cleanup_ctx.append(client)
application.router.add_route("*", "/{path:.*}", forward)
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
