"""The internals of the servers that the engines reach: upstream has not changed them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from djasgi.options import SERVERS

ROOT = Path(__file__).parent.parent.parent

HTTPTOOLS = "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol"
CYCLE = "uvicorn.protocols.http.httptools_impl:RequestResponseCycle"
SANSIO = "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol"
TCP = "hypercorn.asyncio.tcp_server:TCPServer"
WS = "hypercorn.protocol.ws_stream:WSStream"
CHANNEL = "twisted.web.http:HTTPChannel"
BUFFER = "h11._receivebuffer:ReceiveBuffer"
H2 = "twisted.web._http2:H2Connection"
AUTOBAHN = "autobahn.websocket.protocol:WebSocketProtocol"

# What it is, its parameters, and the names in it that the engines count on.
PINS: dict[str, list[tuple[str, str, str]]] = {
    "uvicorn": [
        (
            f"{HTTPTOOLS}.__init__",
            "self config server_state app_state _loop",
            "cycle connections tasks timeout_keep_alive loop",
        ),
        (f"{HTTPTOOLS}.connection_made", "self transport", "connections add"),
        (
            f"{HTTPTOOLS}.on_headers_complete",
            "self",
            "cycle response_complete pause_reading pipeline should_upgrade url",
        ),
        (f"{HTTPTOOLS}.on_message_begin", "self", "url headers scope"),
        (f"{HTTPTOOLS}.on_message_complete", "self", "should_upgrade more_body"),
        (
            f"{HTTPTOOLS}.handle_websocket_upgrade",
            "self",
            "url scope ws_protocol_class set_protocol",
        ),
        (f"{HTTPTOOLS}.data_received", "self data", "parser feed_data"),
        (
            f"{CYCLE}.send",
            "self message",
            (
                "flow write_paused drain disconnected response_started message_event "
                "response_complete on_response STATUS_LINE keep_alive"
            ),
        ),
        (
            f"{CYCLE}.receive",
            "self",
            (
                "waiting_for_100_continue disconnected response_complete flow "
                "message_event body more_body"
            ),
        ),
        (
            f"{CYCLE}.run_asgi",
            "self app",
            "scope logger response_started transport disconnected on_response",
        ),
        (f"{SANSIO}.handle_connect", "self event", "scope close_sent"),
        (f"{SANSIO}.send", "self message", "initial_response ClientDisconnected"),
        (f"{SANSIO}.connection_lost", "self exc", "queue handshake_complete"),
        # All that is set here is set by `Cycle`.
        (
            f"{CYCLE}.__init__",
            (
                "self scope transport flow logger access_logger access_log "
                "default_headers message_event expect_100_continue keep_alive on_response"
            ),
            (
                "body more_body response_started response_complete chunked_encoding "
                "expected_content_length disconnected waiting_for_100_continue"
            ),
        ),
        (
            f"{HTTPTOOLS}.on_response_complete",
            "self",
            "is_closing flow resume_reading pipeline timeout_keep_alive",
        ),
        (
            f"{SANSIO}.__init__",
            "",
            "transport queue handshake_complete close_sent initial_response conn",
        ),
        (f"{SANSIO}.shutdown", "self", "handshake_complete send_close close"),
        (f"{SANSIO}.send_500_response", "self", "reject send_response data_to_send"),
        (f"{SANSIO}.run_asgi", "self", "handshake_complete"),
        (
            "uvicorn.server:ServerState.__init__",
            "self",
            "connections tasks default_headers",
        ),
        ("uvicorn.config:Config.load", "self", "loaded_app encoded_headers"),
    ],
    "hypercorn": [
        (
            f"{TCP}.__init__",
            "self app loop config context state reader writer",
            "idle_task",
        ),
        (
            f"{TCP}.run",
            "self",
            "_task_group protocol idle_task restart _read_data _close",
        ),
        (f"{TCP}.protocol_send", "self event", "idle idle_task restart stop"),
        (f"{TCP}._read_data", "self", "read_timeout handle"),
        (f"{TCP}._close", "self", "writer close wait_closed"),
        (f"{TCP}._initiate_server_close", "self", "handle close"),
        (
            f"{WS}.__init__",
            "self app config context task_group ssl client server send stream_id",
            "buffer state closed app_put",
        ),
        (f"{WS}._send_pings", "self", "context sleep closed"),
        (f"{WS}._send_wsproto_event", "self event", ""),
        (f"{WS}._send_error_response", "self status_code", ""),
        (f"{WS}._handle_events", "self", "buffer extend FrameTooLargeError"),
        (
            "hypercorn.protocol.h11:H11Protocol._maybe_recycle",
            "self",
            "connection our_state start_next_cycle Closed",
        ),
        (
            "hypercorn.protocol.h11:H11Protocol._handle_events",
            "self",
            "_check_protocol",
        ),
        ("hypercorn.protocol.h11:H11Protocol._check_protocol", "self event", ""),
        ("hypercorn.protocol.h11:H11Protocol._create_stream", "self request", "stream"),
        ("hypercorn.config:Config.response_headers", "self protocol", ""),
        (
            "hypercorn.protocol:ProtocolWrapper.__init__",
            "",
            "H11Protocol H2Protocol alpn_protocol",
        ),
        ("hypercorn.protocol.h11:H11Protocol.stream_send", "self event", ""),
        (
            "hypercorn.protocol.h11:H11Protocol._handle_events",
            "self",
            "_create_stream _send_error_response error_status_hint",
        ),
        ("hypercorn.protocol.h11:H11Protocol._send_h11_event", "self event", ""),
        ("hypercorn.app_wrappers:ASGIWrapper.__call__", "", "app"),
        (f"{WS}._accept", "self message", ""),
        (f"{WS}.handle", "self event", "app_put StreamClosed"),
        (f"{WS}._accept", "self message", "_send_pings"),
        (
            "hypercorn.protocol.ws_stream:Handshake.accept",
            "self subprotocol additional_headers",
            "PerMessageDeflate",
        ),
        (
            "wsproto.extensions:PerMessageDeflate.frame_inbound_payload_data",
            "",
            "_inbound_compressed _inbound_is_compressible _decompressor",
        ),
        ("hypercorn.protocol.ws_stream:WebsocketBuffer.extend", "self event", ""),
        ("hypercorn.protocol.h2:H2Protocol.__init__", "", "streams local_settings"),
        ("hypercorn.protocol.h2:H2Protocol._create_stream", "self request", "headers"),
        ("hypercorn.protocol.h2:H2Protocol._flush", "self", "data_to_send"),
        ("hypercorn.protocol.h2:H2Protocol._create_stream", "", "HTTPStream"),
        ("hypercorn.protocol.h2:H2Protocol._priority_updated", "self event", ""),
        ("hypercorn.protocol.h2:H2Protocol.handle", "self event", "closed Closed"),
        ("hypercorn.protocol.h2:StreamBuffer.close", "self", "_is_empty _paused"),
        (
            "hypercorn.protocol.h2:H2Protocol._handle_events",
            "self events",
            "DataReceived acknowledge_received_data StreamReset",
        ),
        (
            "hypercorn.protocol.h2:H2Protocol._send_data",
            "self stream_id",
            "stream_buffers end_stream complete",
        ),
        (
            "hypercorn.protocol.http_stream:HTTPStream.handle",
            "self event",
            "spawn_app app_put app_send closed",
        ),
        (
            "hypercorn.asyncio.task_group:TaskGroup.spawn_app",
            "self app config scope send",
            "max_app_queue_size app_queue put",
        ),
        (
            "hypercorn.protocol.h2:H2Protocol.stream_send",
            "self event",
            "StreamClosed _close_stream set_complete",
        ),
        ("h11._connection:Connection.next_event", "self", "_receive_buffer"),
        (
            "h11._connection:Connection._process_event",
            "self role event",
            (
                "_cstate process_event process_keep_alive_disabled "
                "client_is_waiting_for_100_continue _respond_to_state_changes "
                "_request_method their_http_version"
            ),
        ),
        (
            "h11._connection:Connection._respond_to_state_changes",
            "",
            "_reader _get_io_object",
        ),
        ("h11._connection:Connection._get_io_object", "self role event io_dict", ""),
        (
            "h11._state:ConnectionState.process_event",
            "self role event_type server_switch_event",
            "",
        ),
        (
            "hypercorn.asyncio.worker_context:AsyncioSingleTask.restart",
            "self task_group action",
            "",
        ),
        (
            f"{BUFFER}.maybe_extract_lines",
            "self",
            "_data _multiple_lines_search _extract",
        ),
        (f"{BUFFER}.maybe_extract_next_line", "self", "_data"),
        (
            f"{BUFFER}.is_next_line_obviously_invalid_request_line",
            "self",
            "_data",
        ),
        (f"{BUFFER}.__len__", "self", "_data"),
        ("hypercorn.asyncio.task_group:TaskGroup.spawn", "self func args", ""),
    ],
    "daphne": [
        (
            "daphne.server:Server.create_application",
            "self protocol scope",
            "application connections",
        ),
        ("daphne.server:Server.protocol_disconnected", "self protocol", "connections"),
        (
            "daphne.http_protocol:WebRequest.__init__",
            "",
            (
                "client_addr server_addr server application_queue _response_started "
                "protocol_connected"
            ),
        ),
        ("daphne.http_protocol:WebRequest.process", "self", "transport makeConnection"),
        (
            "daphne.http_protocol:WebRequest.handle_reply",
            "self message",
            "_response_started responseHeaders",
        ),
        ("daphne.http_protocol:WebRequest.basic_error", "", "error_template"),
        (
            "daphne.http_protocol:WebRequest.finish",
            "self",
            "application_queue send_disconnect protocol_disconnected",
        ),
        ("daphne.http_protocol:WebRequest.send_disconnect", "", "application_queue"),
        ("daphne.http_protocol:WebRequest.duration", "", "request_start"),
        (
            "daphne.server:Server.application_checker",
            "",
            "connections application_instance disconnected",
        ),
        (
            "twisted.web.http:Request.requestReceived",
            "self command path version",
            "content method uri clientproto path process",
        ),
        (
            "twisted.web.http:Request.finish",
            "self",
            "startedWriting chunked finished _cleanup",
        ),
        ("daphne.ws_protocol:WebSocketProtocol.onClose", "", "muted application_queue"),
        ("daphne.ws_protocol:WebSocketProtocol.serverAccept", "", "handshake_deferred"),
        ("daphne.ws_protocol:WebSocketProtocol.handle_reply", "self message", ""),
        ("daphne.ws_protocol:WebSocketProtocol.serverSend", "", "sendMessage"),
        (f"{CHANNEL}.connectionMade", "self", "setTimeout timeOut"),
        (f"{CHANNEL}.lineReceived", "self line", "headerReceived allHeadersReceived"),
        (f"{CHANNEL}.headerReceived", "self line", "_maybeChooseTransferDecoder"),
        (
            f"{CHANNEL}.allContentReceived",
            "self",
            "_command _path _version _handlingRequest setRawMode requestReceived",
        ),
        (f"{CHANNEL}.rawDataReceived", "self data", "_handlingRequest"),
        (f"{CHANNEL}.writeHeaders", "self version code reason headers", ""),
        (f"{CHANNEL}._respondToBadRequestAndDisconnect", "self", ""),
        (
            "twisted.protocols.basic:LineReceiver.dataReceived",
            "self data",
            "_buffer line_mode lineLengthExceeded MAX_LENGTH",
        ),
        (
            "twisted.web.http:_GenericHTTPChannelProtocol.dataReceived",
            "self data",
            "H2Connection _channel requestFactory timeOut",
        ),
        (f"{H2}._requestReceived", "self event", "streams H2Stream"),
        (f"{H2}._requestDataReceived", "self event", "streams receiveDataChunk"),
        (f"{H2}._requestEnded", "self event", "requestComplete"),
        (f"{H2}._requestAborted", "self event", "streams"),
        (f"{H2}._requestDone", "self streamID", "streams"),
        (f"{H2}.abortRequest", "self streamID", "reset_stream _requestDone"),
        (f"{H2}.writeHeaders", "self version code reason headers streamID", ""),
        (f"{H2}._tryToWriteControlData", "self", ""),
        (f"{H2}.timeoutConnection", "self", "close_connection loseConnection"),
        (f"{AUTOBAHN}.consumeData", "self", "STATE_CONNECTING processHandshake"),
        (f"{AUTOBAHN}.dropConnection", "self abort", ""),
        (f"{AUTOBAHN}._fail_connection", "self code reason", ""),
        (
            "daphne.http_protocol:WebRequest.process",
            "self",
            "requestHeaders INVALID_HEADER_VALUE_BYTES create_application",
        ),
        (
            "daphne.ws_protocol:WebSocketProtocol.onConnect",
            "self request",
            "create_application handshake_deferred",
        ),
        (f"{CHANNEL}.dataReceived", "self data", "resetTimeout LineReceiver"),
        (f"{CHANNEL}.allHeadersReceived", "self", "checkPersistence"),
        (f"{CHANNEL}.allContentReceived", "self", "timeOut _savedTimeOut"),
        (f"{CHANNEL}.requestDone", "self request", "persistent _savedTimeOut"),
        (f"{CHANNEL}.timeoutConnection", "self", "abortTimeout loseConnection"),
        (f"{CHANNEL}.loseConnection", "self", "_networkProducer unregisterProducer"),
        (f"{CHANNEL}.connectionLost", "self reason", "_abortingCall cancel"),
        ("twisted.internet.tcp:Connection.loseWriteConnection", "self", ""),
        ("twisted.internet.tcp:Connection.abortConnection", "self", "_aborting"),
        (
            "twisted.internet.abstract:FileDescriptor.write",
            "self data",
            "connected _tempDataBuffer _tempDataLen startWriting",
        ),
        (
            "twisted.internet.abstract:FileDescriptor.doWrite",
            "self",
            "dataBuffer writeSomeData disconnecting _writeDisconnecting",
        ),
        (
            "twisted.protocols.policies:TimeoutMixin.setTimeout",
            "self period",
            "timeOut",
        ),
        (
            "twisted.internet.unix:Port._fromListeningDescriptor",
            "reactor fd factory",
            "",
        ),
        (
            "twisted.internet.unix:Port.startListening",
            "self",
            "_bindPath chmod backlog",
        ),
        (
            "twisted.internet.unix:Port.connectionLost",
            "self reason",
            "_bindPath unlink",
        ),
        ("twisted.internet.tcp:_SocketCloser._closeSocket", "", "_shouldShutdown"),
        (
            "twisted.internet.asyncioreactor:AsyncioSelectorReactor.crash",
            "self",
            "crash stop",
        ),
        (
            f"{AUTOBAHN}.sendCloseFrame",
            "self code reasonUtf8 isReply",
            "_batched_timer",
        ),
        (f"{AUTOBAHN}._sendAutoPing", "self", "_batched_timer autoPingTimeout"),
        (f"{AUTOBAHN}.sendMessage", "", "maxMessagePayloadSize"),
    ],
}

LOOK = """
import asyncio, inspect, json, sys
from importlib import import_module
from djasgi import servers
from djasgi.options import Options

loop = asyncio.new_event_loop()
servers.load(sys.argv[1]).prepare(Options(http2=True), loop)
seen = {}
for path in json.load(sys.stdin):
    module, _, name = path.partition(":")
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not None:
        found = inspect.unwrap(found)
        code = found.__code__
        inner = [c for c in code.co_consts if hasattr(c, "co_names")]
        names = {n for c in (code, *inner) for n in (*c.co_names, *c.co_varnames)}
        seen[path] = [list(inspect.signature(found).parameters), sorted(names)]
loop.close()
print(json.dumps(seen))
"""


@cache
def seen(server: str) -> dict[str, tuple[list[str], list[str]]]:
    """The parameters of each pinned function, and the names in it."""
    paths = [path for path, _, _ in PINS[server]]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, server],
        cwd=ROOT,
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, tuple[list[str], list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("server", "path", "parameters", "names"),
    [(server, *pin) for server in SERVERS for pin in PINS[server]],
)
def test_internals_are_as_the_engines_know_them(
    server: str, path: str, parameters: str, names: str
) -> None:
    assert path in seen(server), "it is gone"
    takes, uses = seen(server)[path]
    assert not parameters or takes == parameters.split()
    assert set(names.split()) <= set(uses)


def test_a_second_reactor_is_refused() -> None:
    code = (
        "import asyncio\n"
        "from djasgi import servers\n"
        "from djasgi.errors import ProjectError\n"
        "from djasgi.options import Options\n"
        "loop = asyncio.new_event_loop()\n"
        "import twisted.internet.reactor\n"
        "try:\n"
        "    servers.load('daphne').prepare(Options(), loop)\n"
        "except ProjectError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("A Twisted reactor is installed already.\n")


def test_daphne_is_imported_before_the_fork_and_has_the_reactor_of_the_fork() -> None:
    code = (
        "import asyncio, sys\n"
        "from djasgi import servers\n"
        "from djasgi.options import Options\n"
        "from djasgi.supervisor import unforkable\n"
        "daphne = servers.load('daphne')\n"
        "before = unforkable.present()\n"
        "daphne.preload(Options())\n"
        "print(unforkable.left_since(before), repr(daphne.unforkable()))\n"
        "daphne.prepare(Options(), asyncio.new_event_loop())\n"
        "from twisted.internet import reactor\n"
        "bound = [name for name, module in sys.modules.items()\n"
        "         if isinstance(vars(module).get('reactor'), type(reactor))]\n"
        "print(*sorted(bound))\n"
        "print({id(sys.modules[name].reactor) for name in bound} == {id(reactor)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    left, bound, same = done.stdout.splitlines()
    assert left == "{} ''"
    assert {"daphne.server", "djasgi.servers.engines.daphne"} < {*bound.split()}
    assert same == "True"
